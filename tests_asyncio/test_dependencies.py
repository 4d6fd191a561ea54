from tests_trio.test_dependencies import *
