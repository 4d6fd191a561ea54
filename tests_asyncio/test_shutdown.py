from tests_trio.test_shutdown import *
