from tests_trio.test_instruments import *
