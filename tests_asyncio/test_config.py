from tests_trio.test_config import *
