from tests_trio.test_objects import *
