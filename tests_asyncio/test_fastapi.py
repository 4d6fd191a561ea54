from tests_trio.test_fastapi import *
