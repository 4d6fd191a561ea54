from tests_trio.test_cleanups import *
