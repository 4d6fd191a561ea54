from tests_trio.test_mutations import *
