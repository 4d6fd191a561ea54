from tests_trio.test_failure import *
