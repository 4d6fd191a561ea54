from tests_trio.test_interrupt import *
