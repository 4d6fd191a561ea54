from tests_trio.test_containment import *
