from tests_trio.test_history import *
