from tests_trio.test_testing import *
