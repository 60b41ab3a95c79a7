"""A lab in the background: `up` and `down`, from outside; `remote` runs commands in it, `serve` is its inside.

One directory per user holds everything: the spool, the log, and a lock that the background process keeps for as long
as it lives, so that a crashed lab is never taken for a running one.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lbnode.lab import kernel, spool
from lbnode.lab.errors import LabError
from lbnode.lab.wait import WaitError, wait_until

UP_DEADLINE_S = 180.0
DOWN_DEADLINE_S = 30.0


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own directory for this, made when it is not there. Raises LabError when it is not theirs alone."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime, "lbnode-lab") if runtime else Path(f"/tmp/lbnode-lab-{os.getuid()}")  # noqa: S108
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LabError(f"cannot use {path}: it must be a directory that nobody else can enter")
    return path


def is_up(state: Path) -> bool:
    """Whether a background process holds the lab's lock."""
    with (state / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def up(state: Path, server: Sequence[str], deadline_s: float = UP_DEADLINE_S) -> list[str]:
    """Starts `server` (a command that calls `serve.serve(state, ...)`) and returns the nodes' names once it is ready.

    Raises LabError when a lab is up already, or with the end of the log when this one does not come up.
    """
    if is_up(state):
        raise LabError("cannot start a lab: one is up already (lbnode lab down)")
    for name in ("ready", "stop", "requests", "log", "lab.json"):
        path = state / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (state / "requests").mkdir()
    argv = [sys.executable, "-m", "lbnode.lab.session", str(state), *server]
    with (state / "log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: (state / "ready").exists() or process.poll() is not None, deadline_s, "the lab to be ready")
    except BaseException:
        _finish(process)
        raise
    if process.poll() is not None:
        raise LabError(f"cannot bring the lab up; the end of its log:\n{_log_tail(state)}")
    process.returncode = 0  # it outlives us on purpose
    return (state / "ready").read_text().split("\n")


def down(state: Path, deadline_s: float = DOWN_DEADLINE_S) -> bool:
    """Ends the lab; returns whether there was one. Raises LabError when it will not end."""
    if not is_up(state):
        return False
    spool.publish(state / "stop", b"")
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, ValueError):
            if number is not None:
                os.kill(int((state / "pid").read_text()), number)
        with suppress(WaitError):
            wait_until(lambda: not is_up(state), deadline_s, "the lab to end")
            return True
    raise LabError("cannot end the lab: its process does not go")


def _finish(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(DOWN_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log_tail(state: Path, lines: int = 25) -> str:
    text = (state / "log").read_text(errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def main(arguments: Sequence[str]) -> int:
    """The background process: `STATE COMMAND...`; holds the lock while the command runs on a kernel that can."""
    state, command = Path(arguments[0]), arguments[1:]
    with (state / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (state / "pid").write_text(str(os.getpid()))
            return kernel.run(command, shared=(state,))
        except BlockingIOError:
            sys.stderr.write("lbnode lab: another lab is up\n")
            return LabError.exit_code
        except LabError as error:
            sys.stderr.write(f"lbnode lab: {error}\n")
            return error.exit_code
        finally:
            (state / "ready").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
