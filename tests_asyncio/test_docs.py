from tests_trio.test_docs import *
