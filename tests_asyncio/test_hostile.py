from tests_trio.test_hostile import *
