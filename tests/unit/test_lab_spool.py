import os

import pytest

from lbnode.lab import session, spool
from lbnode.lab.errors import LabError
from lbnode.lab.spool import Numbered, Numberer, Request


@pytest.mark.parametrize("terminal", [None, (24, 80)])
def test_a_request_survives_the_journey(terminal):
    request = Request("l4a", ("sh", "-c", "echo 'ä'\n"), "xterm", terminal)
    assert Request.from_json(request.to_json()) == request


def test_pieces_are_taken_once_and_in_order(tmp_path):
    writer, reader = Numberer(tmp_path, "stdin"), Numbered(tmp_path, "stdin")
    for number in range(12):
        writer.put(b"%d" % number)
    assert list(reader.take(spool.listing(tmp_path))) == [b"%d" % number for number in range(12)]
    assert list(reader.take(spool.listing(tmp_path))) == []
    assert not spool.listing(tmp_path)


def test_a_writer_far_ahead_is_told_to_wait(tmp_path):
    writer, reader = Numberer(tmp_path, "stdin"), Numbered(tmp_path, "stdin")
    while not writer.is_full():
        writer.put(b"x")
    assert writer.number == spool.PIECES_AHEAD
    list(reader.take(spool.listing(tmp_path)))
    assert not writer.is_full()


def test_a_directory_that_is_gone_has_nothing_in_it(tmp_path):
    assert spool.listing(tmp_path / "gone") == set()


def test_the_state_directory_is_the_users_alone(tmp_path):
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    state = session.state_directory(environ)
    assert state == tmp_path / "lbnode-lab"
    assert session.state_directory(environ) == state
    state.chmod(0o755)
    with pytest.raises(LabError, match="nobody else"):
        session.state_directory(environ)
    state.rmdir()
    state.symlink_to("/")
    with pytest.raises(LabError, match="nobody else"):
        session.state_directory(environ)


def test_a_stale_directory_is_not_a_running_lab(tmp_path):
    (tmp_path / "ready").write_text("r1")
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert not session.is_up(tmp_path)
    assert not session.down(tmp_path)
