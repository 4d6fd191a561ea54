from tests_trio.test_jobs import *
