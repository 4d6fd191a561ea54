from tests_trio.test_handle import *
