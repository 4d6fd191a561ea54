from tests_trio.test_corners import *
