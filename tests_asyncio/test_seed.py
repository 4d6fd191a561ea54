from tests_trio.test_seed import *
