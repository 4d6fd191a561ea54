from tests_trio.test_timing import *
