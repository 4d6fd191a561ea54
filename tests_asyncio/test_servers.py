from tests_trio.test_servers import *
