from tests_trio.test_bad_input import *
