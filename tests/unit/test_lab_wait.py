import pytest

from lbnode.lab.errors import LabError
from lbnode.lab.wait import wait_until


def test_returns_what_the_condition_returned():
    answers = iter([None, "", "here"])
    assert wait_until(lambda: next(answers), 5, "an answer", poll_s=0) == "here"


def test_a_condition_is_tried_even_without_time():
    assert wait_until(lambda: True, 0, "nothing")


def test_says_what_was_waited_for():
    with pytest.raises(LabError, match=r"waited 0 s in vain for the router to answer") as caught:
        wait_until(lambda: False, 0, "the router to answer")
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.exit_code == 69
