from tests_trio.test_running import *
