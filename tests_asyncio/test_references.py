from tests_trio.test_references import *
