from tests_trio.test_faults import *
