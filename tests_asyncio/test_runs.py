from tests_trio.test_runs import *
