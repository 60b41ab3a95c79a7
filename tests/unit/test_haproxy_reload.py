"""The client of HAProxy's sockets where a real HAProxy cannot be brought to it: other versions' answers, silence.

The real one, and reloads of it, stand in test_haproxy_real.py. The answers here are from the management manuals.
"""

import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lbnode.errors import ApplyFailed, NotReady
from lbnode.haproxy import runtime
from lbnode.haproxy.reload import reload
from lbnode.haproxy.runtime import NotRunning, Runtime
from lbnode.paths import Paths

PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
10              master          2 [failed: 0]   0d00h00m13s     2.9.0
# workers
12              worker          0               0d00h00m03s     2.9.0
# old workers
11              worker          1               0d00h00m13s     2.9.0
# programs

"""
FAILED = "Success=0\n--\n[NOTICE]   (10) : Loading\n[ALERT]    (13) : config : [/x:3] : no such thing.\n"


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        paths = Paths(Path(folder), Path(folder))
        for path in (paths.haproxy_config, paths.haproxy_socket):
            path.parent.mkdir(parents=True, exist_ok=True)
        paths.haproxy_config.write_text("global\n    description lbnode 0123456789abcdef\n")
        yield paths


@contextmanager
def answering(path: Path, answers: Mapping[str, str]) -> Iterator[None]:
    """A socket that gives these answers to these commands."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(answers[self.rfile.readline().decode().strip()].encode())

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_processes_are_the_current_workers_and_the_failures(paths: Paths) -> None:
    with answering(paths.haproxy_master_socket, {"show proc": PROC}):
        now = Runtime(paths.haproxy_master_socket).processes()
    assert now == runtime.Processes(failed=0, workers=("12",), old=(("11", "0d00h00m13s"),))


def test_a_failure_that_the_master_tells_is_believed_at_once(paths: Paths) -> None:
    with (
        answering(paths.haproxy_master_socket, {"show proc": PROC, "reload": FAILED}),
        pytest.raises(ApplyFailed, match=r"old configuration still serves: \[/x:3\] : no such thing\.$"),
    ):
        reload(paths)


def test_success_is_not_believed_until_the_worker_runs_the_file(paths: Paths) -> None:
    with (
        answering(paths.haproxy_master_socket, {"show proc": PROC, "reload": "Success=1\n--\n"}),
        answering(paths.haproxy_socket, {"show info": "Pid: 12\ndescription: lbnode ffffffffffffffff\n"}),
        pytest.raises(ApplyFailed, match=r"does not run the new configuration after 0\.1 s"),
    ):
        reload(paths, wait_s=0.1)


def test_nobody_there_and_nobody_answering_are_told_apart(paths: Paths) -> None:
    with pytest.raises(NotRunning, match=f"nobody listens on {paths.haproxy_socket}"):
        Runtime(paths.haproxy_socket).info()
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(paths.haproxy_socket))
        silent.listen()
        with pytest.raises(NotReady, match="does not answer: timed out") as caught:
            Runtime(paths.haproxy_socket, timeout_s=0.05).info()
    assert not isinstance(caught.value, NotRunning)


def test_only_one_command_at_a_time(paths: Paths) -> None:
    with pytest.raises(ValueError, match="not one command"):
        Runtime(paths.haproxy_socket).command("show info\nshutdown")


def test_statistics_with_commas_and_quotes_in_them() -> None:
    (row,) = runtime.rows('# pxname,svname,last_chk,new_in_4.0,\nb,s,"Layer4 ""x"", refused",7,\n\n')
    assert row == {"pxname": "b", "svname": "s", "last_chk": 'Layer4 "x", refused', "new_in_4.0": "7"}


def test_states_in_an_unknown_format_are_not_used(paths: Paths) -> None:
    with (
        answering(paths.haproxy_socket, {"show servers state": "2\n# other\n"}),
        pytest.raises(NotReady, match="cannot read the servers' states"),
    ):
        Runtime(paths.haproxy_socket).servers_state()
