"""Rise and fall, and real probes against real sockets."""

import asyncio
import errno
import os
import resource
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.health.http import matches
from lbnode.health.monitor import Monitor, Pace, probe_once, rest
from lbnode.health.probes import Client, ask, failure
from lbnode.health.script import AT_ONCE
from lbnode.health.state import Health, Outcome, Probe, step
from lbnode.lab.wait import wait_until
from lbnode.maintenance.state import Mode, parse


def walk(text, rise=2, fall=3, health=None):
    """`+` a success, `-` a failure, `?` could not ask; returns the row of `up` as the same signs."""
    health, seen = health or Health(), ""
    for sign in text:
        health = step(health, Outcome({"+": True, "-": False, "?": None}[sign], sign), rise, fall)
        seen += {True: "+", False: "-", None: "?"}[health.up]
    return seen


@pytest.mark.parametrize(
    ("outcomes", "up"),
    [
        ("+", "+"),
        ("-", "?"),
        ("---", "??-"),
        ("-?-+", "???+"),
        ("+--+--", "++++++"),
        ("+---", "+++-"),
        ("----+-++", "??-----+"),
        ("+--?-", "++++-"),
        ("????", "????"),
        ("+????????", "+++++++++"),
    ],
)
def test_rise_two_fall_three(outcomes, up):
    assert walk(outcomes) == up


@given(st.text("+-?", max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_a_health_turns_only_after_a_run_against_it(outcomes, rise, fall):
    seen = walk(outcomes, rise, fall)
    for place in range(1, len(seen)):
        if seen[place] != seen[place - 1] and seen[place - 1] != "?":
            run = outcomes[: place + 1].replace("?", "")
            needed = rise if seen[place] == "+" else fall
            assert run.endswith(seen[place] * needed)


def test_a_silent_agent_check_keeps_the_last_word():
    said = step(Health(), Outcome(True, "", parse("drain")), 1, 1)
    assert step(said, Outcome(False, "refused"), 1, 1).admin.mode is Mode.DRAIN


@pytest.mark.parametrize(
    "health",
    [Health(True, "HTTP 200", parse("75% # disks")), Health(False, "no answer within 1 s", None, silent=True)],
)
def test_health_travels_as_json(health):
    assert Health.from_json(health.as_json()) == health


def silence(text, health=None):
    """`+` a success, `-` a failure that answered, `.` silence; returns whether it is held to be silent, after each."""
    health, seen = health or Health(), ""
    for sign in text:
        health = step(health, Outcome(sign == "+", sign, silent=sign == "."), 2, 3)
        seen += "s" if health.silent else "-"
    return seen


@pytest.mark.parametrize(
    ("outcomes", "silent"),
    [
        ("...", "--s"),
        ("+....", "---ss"),
        ("+---...", "------s"),
        ("+---..-..", "---------"),
        ("+...-", "---s-"),
        ("+...++", "---s--"),
        ("+..-...", "------s"),
    ],
)
def test_one_lost_probe_does_not_make_a_server_silent(outcomes, silent):
    assert silence(outcomes) == silent


@asynccontextmanager
async def serving(answer):
    async def connected(reader, writer):
        if answer.startswith(b"HTTP"):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("kind", "line", "up", "reason"),
    [
        ("http", b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", True, "HTTP 200"),
        ("http", b"HTTP/1.0 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", True, "HTTP 302"),
        ("http", b"HTTP/1.0 503 No\r\ncontent-length: 0\r\n\r\n", False, "HTTP 503"),
        ("tcp", b"", True, "connected"),
        ("agent", b"up drain 100%\n", True, "agent-check drain"),
        ("agent", b"hello\n", False, "agent-check makes no sense"),
    ],
)
def test_a_probe_finds(kind, line, up, reason):
    async def scenario():
        async with serving(line) as port:
            probe = Probe(kind, "127.0.0.1", port, "/healthcheck" if kind == "http" else "")
            return (await probe_once([probe], 2.0))[probe]

    health = asyncio.run(scenario())
    assert health.up is up
    assert health.reason.startswith(reason)


async def told(probes, timeout_s, fall=1):
    """What probes find; again, as an agent does, while this machine is too busy to tell."""
    found = {}
    async with asyncio.timeout(20):
        while not found or any(health.up is None for health in found.values()):
            found = await probe_once(probes, timeout_s, fall)
    return found


def starve():
    """Holds the loop past the time-out, as a machine does that has no time for this process."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


def test_a_probe_that_this_node_was_too_busy_for_says_nothing():
    async def scenario():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        probe = Probe("http", "127.0.0.1", server.sockets[0].getsockname()[1], "/")
        asyncio.get_running_loop().call_later(0.05, starve)
        found = (await probe_once([probe], 0.1))[probe]
        server.close()
        await server.wait_closed()
        return found

    health = asyncio.run(scenario())
    assert health.up is None
    assert "this node is too busy" in health.reason


def test_a_refused_and_a_silent_target_are_down_but_a_missing_route_is_unknown():
    async def scenario():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        quiet, refused = Probe("http", "127.0.0.1", port, "/"), Probe("tcp", "127.0.0.1", 1)
        found = await told([quiet, refused], 0.2)
        server.close()
        await server.wait_closed()
        return found[quiet], found[refused]

    quiet, refused = asyncio.run(scenario())
    assert (quiet.up, quiet.reason, quiet.silent) == (False, "no answer within 0.2 s", False), "it took the connection"
    assert (refused.up, refused.reason, refused.silent) == (False, "ECONNREFUSED", False)


@pytest.mark.parametrize("kind", ["http", "tcp", "agent"])
def test_who_does_not_even_take_the_connection_is_silent(kind):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as queue:
            for _ in range(3):  # nobody accepts: the kernel drops the SYNs that come after
                waiting = queue.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            probe = Probe(kind, "127.0.0.1", full.getsockname()[1], "/" if kind == "http" else "")
            return (await told([probe], 0.2, fall=2))[probe]

    health = asyncio.run(scenario())
    assert (health.up, health.reason, health.silent) == (False, "no answer within 0.2 s", True)


def test_the_monitor_says_when_something_turns():
    async def scenario():
        turned = asyncio.Event()
        monitor = Monitor(turned.set)
        async with serving(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n") as port:
            probe = Probe("http", "127.0.0.1", port, "/")
            await monitor.follow([probe], Pace(0.02, 1, 2, 2))
            await asyncio.wait_for(monitor.settled(), 5)
            up = monitor.health[probe]
            turned.clear()
        await asyncio.wait_for(turned.wait(), 5)
        down = monitor.health[probe]
        await monitor.close()
        return up, down

    up, down = asyncio.run(scenario())
    assert up.up is True
    assert down.up is False


def test_a_server_that_is_back_has_been_so_for_a_while():
    async def scenario():
        turned = asyncio.Event()
        monitor = Monitor(turned.set)
        with socket.create_server(("127.0.0.1", 0)) as place:
            port = place.getsockname()[1]
        probe = Probe("tcp", "127.0.0.1", port)

        async def until(up):
            while monitor.health[probe].up is not up:
                turned.clear()
                await asyncio.wait_for(turned.wait(), 5)
            return monitor.health[probe].back_for_s

        async def connected(_, writer):
            writer.close()

        await monitor.follow([probe], Pace(0.02, 1, 2, 2, 0.5))
        seen = [await until(False)]
        server = await asyncio.start_server(connected, "127.0.0.1", port)
        seen.append(await until(True))
        seen.append(monitor.health[probe].back_for_s)
        server.close()
        seen.append(await until(False))
        await monitor.close()
        return seen

    down, back, later, gone = asyncio.run(scenario())
    assert (down, gone) == (None, None)
    assert 0 <= back < later < 5


@given(st.floats(0, 10), st.floats(-1, 1), st.floats(0, 0.5))
def test_jitter_is_a_share_of_the_interval(left, luck, jitter):
    waited = rest(left, Pace(2.0, 1, 2, 2, jitter), luck)
    assert max(0, left - 2 * jitter) <= waited <= left + 2 * jitter
    assert jitter or waited == left


def find(probe, timeout_s=5.0):
    """One outcome, from a client of its own."""

    async def scenario():
        async with Client() as client:
            outcome = await ask(probe, timeout_s, client)
            while "too busy" in outcome.detail:
                outcome = await ask(probe, timeout_s, client)
            return outcome

    return asyncio.run(scenario())


def exchange(answer, timeout_s=5.0, **changed):
    """The outcome of a probe of a server that sends `answer`, a piece at a time, and what that server was sent."""
    requests = []

    async def connected(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            for piece in answer:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def scenario():
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        probe = Probe("http", "127.0.0.1", server.sockets[0].getsockname()[1], "/check?a=%20", **changed)
        async with Client() as client:
            outcome = await ask(probe, timeout_s, client)
        server.close()
        await server.wait_closed()
        return outcome

    outcome = asyncio.run(scenario())
    return outcome, requests[0].decode()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "expected"),
    [
        ([HEAD % 9, b"all ", b"is ok"], "l is o", (True, "HTTP 200 with its text")),
        ([HEAD % 9, b"all is ok"], "broken", (False, "HTTP 200 without 'broken'")),
        (
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"],
            "ok",
            (True, None),
        ),
        ([HEAD % 70000, b"." * 65534 + b"ok" + b"." * 4464], "ok", (True, None)),
        ([HEAD % 70000, b"." * 65535 + b"ok" + b"." * 4463], "ok", (False, None)),
        ([HEAD % (1 << 30), *[bytes(1 << 20)] * 1024], "x" * 99, (False, f"HTTP 200 without '{'x' * 40}...'")),
        ([HEAD % 9, b"torn"], "ok", (False, "the answer breaks off")),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], "ok", (False, "HTTP 204 without 'ok'")),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "", (False, "the answer makes no sense: Bad status line")),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000], "", (False, None)),
        ([], "", (False, "closed without an answer")),
    ],
    ids=[
        "pieces",
        "another",
        "chunked",
        "just-within",
        "just-beyond",
        "endless",
        "torn",
        "none",
        "ssh",
        "long",
        "silent",
    ],
)
def test_an_answer_is_judged_by_its_text(answer, body, expected):
    outcome, _ = exchange(answer, body=body)
    assert outcome.ok is expected[0]
    assert expected[1] in (None, outcome.detail)
    assert outcome.detail
    assert not outcome.silent


@pytest.mark.parametrize(
    ("status", "wanted", "up"),
    [(200, "2xx", True), (204, "204", True), (404, "2xx", False), (404, "404", True), (503, "404", False)],
)
def test_a_status_is_judged_by_number_or_class(status, wanted, up):
    assert matches(status, wanted) is up
    answer = b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status
    outcome, _ = exchange([answer], status=("100", wanted))
    assert (outcome.ok, outcome.detail) == (up, f"HTTP {status}")


def test_a_request_says_what_the_operator_wrote():
    _, request = exchange([HEAD % 0], host="www.example.com")
    lines = request.lower().splitlines()
    assert lines[0] == "get /check?a=%20 http/1.1"
    assert {"host: www.example.com", "connection: close", "accept-encoding: identity"} <= set(lines)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed one for web.example, and its key, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=web.example"
    argv = ["openssl", "req", *options.split(), "-addext", "subjectAltName=DNS:web.example"]
    argv += ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(argv, check=True, capture_output=True)
    both = folder / "both"
    both.write_text((folder / "certificate").read_text() + (folder / "key").read_text())
    return both


def ask_tls(certificate, **changed):
    """The outcome, and the names that the server was asked for."""
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: names.append(name)

    async def connected(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % 2 + b"ok")
        writer.close()

    async def scenario():
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        probe = Probe("https", "127.0.0.1", server.sockets[0].getsockname()[1], "/", **changed)
        async with Client() as client:
            outcome = await ask(probe, 5, client)
        server.close()
        return outcome

    outcome = asyncio.run(scenario())
    return (outcome.ok, outcome.detail), names


def test_https_asks_for_the_host_and_need_not_trust_it(certificate):
    assert ask_tls(certificate, body="ok") == ((True, "HTTP 200 with its text"), [None])
    assert ask_tls(certificate, host="other.example") == ((True, "HTTP 200"), ["other.example"])


def test_https_can_insist_on_the_certificate(certificate, monkeypatch):
    found, _ = ask_tls(certificate, host="web.example", verify=True)
    assert found == (False, "certificate is not valid: self-signed certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask_tls(certificate, host="web.example", verify=True) == ((True, "HTTP 200"), ["web.example"])
    (up, reason), _ = ask_tls(certificate, host="other.example", verify=True)
    assert not up
    assert reason.startswith("certificate is not valid: Hostname mismatch")


def test_what_does_not_speak_tls_is_down_but_not_silent():
    async def scenario():
        async with serving(b"hello\n") as port, Client() as client:
            plain = await ask(Probe("https", "127.0.0.1", port, "/"), 5, client)
        with socket.create_server(("127.0.0.1", 0)) as quiet:  # the kernel takes the connection
            async with Client() as client:
                mute = await ask(Probe("https", "127.0.0.1", quiet.getsockname()[1], "/"), 1, client)
        return plain, mute

    plain, mute = asyncio.run(scenario())
    assert plain.ok is False
    assert plain.detail.startswith("no TLS: ")
    assert (mute.ok, mute.detail, mute.silent) == (False, "no answer within 1 s", False)


@pytest.fixture
def script(tmp_path):
    def written(*lines, mode=0o755, first="#!/bin/sh"):
        path = tmp_path / "check"
        path.write_text("\n".join((first, *lines)) + "\n")
        path.chmod(mode)
        return Probe("script", "2001:db8::1", 443, mark=0x6C000001, source="2001:db8::141", script=str(path))

    return written


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["echo all well", "echo more"], (True, "exit status 0: all well")),
        (["exit 0"], (True, "exit status 0")),
        (["echo 'disk full' >&2", "exit 3"], (False, "exit status 3: disk full")),
        (["kill -SEGV $$"], (False, "killed by SIGSEGV")),
        (["cat"], (True, "exit status 0")),
        (["head -c 10000000 /dev/zero | tr '\\0' x"], (True, "exit status 0: " + "x" * 200)),
        (["printf '\\377\\n'", "exit 1"], (False, "exit status 1: \ufffd")),
        (["sleep 60 &", "echo quick"], (True, "exit status 0: quick")),
    ],
    ids=["up", "mute", "down", "signal", "no-input", "flood", "no-text", "left-behind"],
)
def test_a_script_says(script, lines, expected):
    outcome = find(script(*lines))
    assert (outcome.ok, outcome.detail, outcome.silent) == (*expected, False)


def test_a_script_is_told_what_to_ask_and_no_more(script, tmp_path):
    find(script(f"env > {tmp_path}/told; pwd >> {tmp_path}/told"))
    told = set((tmp_path / "told").read_text().split())
    assert {line for line in told if line.startswith("LBNODE_")} == {
        "LBNODE_ADDRESS=2001:db8::1",
        "LBNODE_PORT=443",
        "LBNODE_FAMILY=6",
        "LBNODE_MARK=1811939329",
        "LBNODE_SOURCE=2001:db8::141",
    }
    others = {line.partition("=")[0] for line in told if not line.startswith("LBNODE_")}
    assert others <= {"PATH", "PWD", "SHLVL", "OLDPWD", "_", "/"}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("cancel", [False, True])
def test_a_script_that_takes_too_long_goes_with_all_that_it_started(script, tmp_path, cancel):
    probe = script(
        "trap '' TERM", "sleep 60 &", f"echo $$ $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pids", "wait"
    )

    async def scenario():
        async with Client() as client:
            asked = asyncio.create_task(ask(probe, 60 if cancel else 1, client))
            if cancel:
                await asyncio.to_thread(wait_until, (tmp_path / "pids").exists, 20, "the script to say its numbers")
                asked.cancel()
            return (await asyncio.gather(asked, return_exceptions=True))[0]

    outcome = asyncio.run(scenario())
    if not cancel:
        assert (outcome.ok, outcome.detail, outcome.silent) == (False, "no answer within 1 s", False)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    wait_until(lambda: not any(alive(pid) for pid in pids), 5, "the whole group to be gone")


def test_a_script_that_cannot_be_started_says_nothing_of_the_target(script):
    missing = find(Probe("script", "192.0.2.1", 80, script="/nowhere/check"))
    assert (missing.ok, missing.detail) == (None, "/nowhere/check: no such file or directory (ENOENT)")
    for probe in (script("exit 1", mode=0o644), script("", first="nonsense")):
        outcome = find(probe)
        assert outcome.ok is None
        assert outcome.detail.endswith(("permission denied (EACCES)", "exec format error (ENOEXEC)"))


def test_only_so_many_scripts_run_at_once(script, tmp_path):
    (tmp_path / "running").mkdir()
    probe = script(f"cd {tmp_path}/running; : > $$; set -- *; echo $#; sleep 0.05; rm $$")

    async def scenario():
        async with Client() as client:
            return await asyncio.gather(*(ask(probe, 20, client) for _ in range(2 * AT_ONCE)))

    counts = [int(outcome.detail.removeprefix("exit status 0: ")) for outcome in asyncio.run(scenario())]
    assert 1 < max(counts) <= AT_ONCE


@contextmanager
def no_more_descriptors():
    """As if all were in use."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open("/dev/null", os.O_RDONLY)  # the lowest number that is free
    os.close(taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


@pytest.mark.parametrize("kind", ["http", "https", "tcp", "agent", "script"])
def test_who_has_no_descriptors_blames_nobody(kind, script):
    probe = script("exit 1") if kind == "script" else Probe(kind, "127.0.0.1", 1)

    async def scenario():
        async with Client() as client:
            with no_more_descriptors():
                return await ask(probe, 5, client)

    outcome = asyncio.run(scenario())
    assert (outcome.ok, outcome.silent) == (None, False)
    assert outcome.detail.endswith("too many open files (EMFILE)")


@pytest.mark.parametrize("kind", ["http", "tcp", "agent"])
def test_who_does_not_have_the_source_blames_nobody(kind):
    outcome = find(Probe(kind, "127.0.0.1", 1, source="192.0.2.77"))
    assert (outcome.ok, outcome.detail) == (None, "cannot assign requested address (EADDRNOTAVAIL)")


@pytest.mark.parametrize(
    ("number", "ok", "silent"),
    [
        (errno.ENOBUFS, None, False),
        (errno.ENOMEM, None, False),
        (errno.ENETDOWN, None, False),
        (errno.ECONNREFUSED, False, False),
        (errno.ECONNRESET, False, False),
        (errno.EHOSTUNREACH, False, True),
        (errno.ENETUNREACH, False, True),
    ],
)
def test_whose_fault_an_error_is(number, ok, silent):
    outcome = failure(OSError(number, ""))
    assert (outcome.ok, outcome.silent) == (ok, silent)


def waiting() -> set[tuple[str, str]]:
    """Both ends of every TCP connection in TIME_WAIT."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(row[1], row[2]) for row in rows if row[3] == "06"}


def test_a_probe_ends_by_a_reset_so_that_nothing_lingers():
    async def scenario():
        async with serving(HEAD % 0) as port, Client() as client:
            before = waiting()  # the port may have been a client's a moment ago
            found = [await ask(Probe(kind, "127.0.0.1", port), 5, client) for kind in ("http", "tcp", "http")]
        return port, before, found

    port, before, found = asyncio.run(scenario())
    assert all(outcome.ok for outcome in found)
    assert not [ends for ends in waiting() - before if f":{port:04X}" in "".join(ends)], "TIME_WAIT"
