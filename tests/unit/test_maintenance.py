"""The maintenance files and the agent-check line."""

import asyncio
import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import LbnodeError
from lbnode.maintenance import files, responder
from lbnode.maintenance.state import READY, AdminState, Mode, answer, effective, parse
from lbnode.paths import Paths


@pytest.mark.parametrize(
    ("line", "mode", "percent"),
    [
        ("", Mode.READY, 100),
        ("up", Mode.READY, 100),
        ("READY\n", Mode.READY, 100),
        ("drain", Mode.DRAIN, 100),
        ("maint", Mode.MAINT, 100),
        ("down", Mode.MAINT, 100),
        ("stopped # planned", Mode.MAINT, 100),
        ("75%", Mode.READY, 75),
        ("up ready 50%", Mode.READY, 50),
        ("down ready 100%", Mode.MAINT, 100),
        ("up, drain\t0%", Mode.DRAIN, 0),
        ("up down", Mode.MAINT, 100),
        ("drain\nready", Mode.DRAIN, 100),
    ],
)
def test_a_line_means(line, mode, percent):
    state = parse(line)
    assert (state.mode, state.percent) == (mode, percent)


@pytest.mark.parametrize("line", ["dwon", "50", "12.5%", "maxconn: 40", "down;x", "\ufeffup"])
def test_a_word_that_haproxy_would_ignore_is_refused(line):
    with pytest.raises(LbnodeError, match="cannot understand"):
        parse(line)


NOW = 1795212000
"""2026-11-20T22:00:00Z"""

words = st.sampled_from(["ready", "drain", "maint", "down", "stopped", "fail"])
moments = st.none() | st.integers(NOW + 1, NOW * 2)
states = st.builds(
    lambda word, percent, maxconn, deadline, until, reason: replace(
        parse(f"{word} {percent}%" + (f" maxconn:{maxconn}" if maxconn else "")),
        deadline=deadline,
        until=until,
        reason=reason,
    ),
    words,
    st.integers(0, 256),
    st.none() | st.integers(1, 9999),
    moments,
    moments,
    st.sampled_from(["", "new disks", "what until=then means"]),
)


@given(states)
def test_an_answer_names_every_axis_and_means_what_it_was_made_from(state):
    line = answer(state).decode()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    said = line.partition("#")[0].split()
    assert {"up", "down", "stopped", "fail"} & set(said)
    assert {"ready", "drain", "maint"} & set(said)
    assert parse(line) == state


def test_the_disable_file_wins_and_its_text_is_the_reason(tmp_path):
    paths = Paths(etc=tmp_path)
    assert files.read(paths, "l7", NOW).state == READY
    paths.agent_check.write_text("75%\n")
    assert files.read(paths, "l7", NOW).state.percent == 75
    paths.disable.write_text("new disks\n")
    state = files.read(paths, "l7", NOW).state
    assert (state.mode, state.word, state.reason) == (Mode.MAINT, "down", "new disks")
    assert effective(None, READY, NOW) == READY


def test_nonsense_keeps_the_last_good_state_and_is_told(tmp_path):
    paths = Paths(etc=tmp_path)
    paths.agent_check.write_text("drian\n")
    drained = AdminState(Mode.DRAIN, "drain")
    reading = files.read(paths, "l7", NOW, drained)
    assert reading.state == drained
    assert "drian" in reading.problem
    assert str(paths.agent_check) in reading.problem


def test_a_share_is_refused_on_an_l4_node(tmp_path):
    paths = Paths(etc=tmp_path)
    paths.agent_check.write_text("75%\n")
    assert "a share means nothing here" in files.read(paths, "l4", NOW).problem
    assert files.read(paths, "backend", NOW).problem == ""


@given(state=states)
def test_what_is_written_is_read_back(tmp_path_factory, state):
    paths = Paths(etc=tmp_path_factory.mktemp("etc"))
    paths.disable.touch()
    files.write(paths, state)
    assert paths.disable.exists() == (state.word != "ready")
    paths.disable.unlink(missing_ok=True)
    assert files.read(paths, "l7", NOW).state == state
    assert [path.name for path in paths.etc.iterdir()] == ["agent-check"]


def test_every_connection_of_a_burst_gets_the_state_of_that_moment():
    async def scenario():
        state = [READY]
        server = await responder.serve(lambda: state[0], 0)
        port = next(s.getsockname()[1] for s in server.sockets if s.family == socket.AF_INET)

        async def line():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            text = await reader.read()
            writer.close()
            return text

        first = await asyncio.gather(*(line() for _ in range(200)))
        state[0] = parse("drain # disks")
        second = await line()
        server.close()
        await server.wait_closed()
        return first, second

    first, second = asyncio.run(scenario())
    assert first == [b"up ready 100%\n"] * 200
    assert second == b"up drain 100% # disks\n"


def at(seconds):
    return NOW + seconds


@pytest.mark.parametrize(
    ("line", "moment", "mode", "reason"),
    [
        ("drain # deadline=2026-11-20T22:00:10Z new disks", at(9), Mode.DRAIN, "new disks"),
        (
            "drain # deadline=2026-11-20T22:00:10Z new disks",
            at(10),
            Mode.MAINT,
            "the drain's deadline, 2026-11-20T22:00:10Z, has passed: new disks",
        ),
        ("drain # deadline=2026-11-20T23:00:10+01:00", at(9), Mode.DRAIN, ""),
        ("maint # until=2026-11-20T22:00:10Z new disks", at(9.9), Mode.MAINT, "new disks"),
        ("maint # until=2026-11-20T22:00:10Z new disks", at(10), Mode.READY, ""),
        ("drain # until=2026-11-20T22:00:20Z deadline=2026-11-20T22:00:10Z x", at(15), Mode.MAINT, None),
        ("drain # until=2026-11-20T22:00:20Z deadline=2026-11-20T22:00:10Z x", at(20), Mode.READY, ""),
        ("50% # until=2026-11-20T22:00:10Z", at(10), Mode.READY, ""),
        ("maint # deadline=2026-11-20T22:00:10Z", at(99), Mode.MAINT, ""),  # a deadline is one of drains
        ("drain # we wait, until=later", at(99), Mode.DRAIN, "we wait, until=later"),
    ],
)
def test_what_is_over_is_over(tmp_path, line, moment, mode, reason):
    paths = Paths(etc=tmp_path)
    paths.agent_check.write_text(line)
    reading = files.read(paths, "l7", moment)
    assert (reading.problem, reading.state.mode) == ("", mode)
    assert reason is None or reading.state.reason == reason
    if mode is Mode.READY:
        assert reading.state == READY
    # An agent that can no longer read the file goes on from what it knows.
    known = files.read(paths, "l7", at(0)).state
    paths.agent_check.write_text("nonsense")
    assert files.read(paths, "l7", moment, known).state == reading.state


def test_when_the_state_will_be_another(tmp_path):
    paths = Paths(etc=tmp_path)
    paths.agent_check.write_text("drain # deadline=2026-11-20T22:00:10Z until=2026-11-20T22:00:20Z")
    assert [files.read(paths, "l4", at(s)).next for s in (0, 10, 20)] == [at(10), at(20), None]
    assert str(files.read(paths, "l4", at(0)).state) == (
        "drain, maint from 2026-11-20T22:00:10Z, ready from 2026-11-20T22:00:20Z"
    )


@pytest.mark.parametrize("moment", ["tomorrow", "", "2026-11-20T22:00:00", "2026-13-20T22:00:00Z", "7"])
def test_a_moment_that_makes_no_sense_is_told(moment):
    with pytest.raises(LbnodeError, match=f"cannot understand 'until={moment}': write it as until=2026"):
        parse(f"maint # until={moment}")


def test_a_disabled_node_is_out_whatever_time_it_is(tmp_path):
    paths = Paths(etc=tmp_path)
    paths.agent_check.write_text("maint # until=2026-11-20T22:00:10Z")
    paths.disable.touch()
    reading = files.read(paths, "l7", at(99))
    assert (reading.state.word, reading.next) == ("down", None)
