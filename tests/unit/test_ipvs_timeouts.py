"""IPVS's time-outs on the wire."""

import pytest

from lbnode.errors import LbnodeError
from lbnode.ipvs import steps, timeouts
from lbnode.ipvs.codec import Command
from lbnode.ipvs.messages import attribute
from lbnode.plan import Change
from lbnode.resources import IpvsTimeouts

ROW = IpvsTimeouts(3900, 120, 300)


def test_they_come_back():
    (request,) = steps.requests(Change(IpvsTimeouts(900, 120, 300), ROW))
    assert request.command == Command.SET_CONFIG
    assert timeouts.decode(request.payload) == ROW


def test_nobody_wanting_them_changes_nothing():
    assert steps.requests(Change(ROW, None)) == []


@pytest.mark.parametrize("payload", [b"", attribute(4, bytes(4)), attribute(5, bytes(4)) + attribute(6, bytes(4))])
def test_what_is_no_answer_is_refused_in_words(payload):
    with pytest.raises(LbnodeError, match="cannot decode the IPVS time-outs"):
        timeouts.decode(payload)
