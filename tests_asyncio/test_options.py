from tests_trio.test_options import *
