from tests_trio.test_examples import *
