from tests_trio.test_programs import *
