from tests_trio.test_waits import *
