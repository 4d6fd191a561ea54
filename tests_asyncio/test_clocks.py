from tests_trio.test_clocks import *
