"""The list of mutants keeps up with the library."""

from tests_trio.mutations import problems


def test_the_list_applies():
    """Each can still be made, and each guarantee has one; `make mutations` tests them."""
    assert list(problems()) == []
