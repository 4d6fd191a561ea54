from tests_trio.test_overload import *
