"""The work directory of a guest: everything that crosses between host and guest goes through it.

The guest's root is the host's own file system, so a private directory is all the interface that is needed: the init
script and the command go in as files, the exit status comes back as one. Output does not: it shall be seen as it is
written, so that goes over lines of its own (`boot`).
"""

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbnode.lab.errors import LabError

INIT = Path(__file__).with_name("init.sh")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# init.sh mounts fresh file systems there; what the host has below them must be asked for.
COVERED = ("/run/", "/var/run/", "/dev/shm/")  # noqa: S108


@dataclass(frozen=True)
class Command:
    """What the guest runs, and where. `shared` are host directories it needs as they are at any moment, even
    below /run."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    shared: tuple[Path, ...] = ()


def environment(env: Mapping[str, str], is_root: bool) -> dict[str, str]:
    """The caller's environment as the guest's command sees it: root's PATH, the guest's modules, no second guest.

    An ordinary user is root inside, and there programs expect what root left in /tmp to be theirs: those get a
    temporary directory of the guest's own.
    """
    path = [part for part in env.get("PATH", "").split(":") if part]
    path += [part for part in SYSTEM_PATH.split(":") if part not in path]
    temporary = {} if is_root or "TMPDIR" in env else {"TMPDIR": "/dev/shm"}  # noqa: S108
    return {
        **env,
        **temporary,
        "PATH": ":".join(path),
        "MODPROBE_OPTIONS": "-d /run/kernel",
        "LBNODE_LAB_KERNEL": "native",
    }


def script(command: Command, is_root: bool) -> str:
    """The shell script that becomes the command. `env` undoes the shell's ignoring of signals in the background."""
    pairs = [f"{name}={value}" for name, value in environment(command.env, is_root).items()]
    argv = ["env", "-i", "--default-signal", *pairs, *command.argv]
    return f"cd {shlex.quote(str(command.cwd))} || exit 72\nexec {shlex.join(argv)}\n"


def prepare(work: Path, command: Command, kernel: Path) -> None:
    """Fills a fresh work directory; `kernel` is the part of the init script that depends on how the guest is made.

    Raises LabError when the directory's name cannot stand on a kernel command line.
    """
    if not str(work).isascii() or any(character.isspace() for character in str(work)):
        raise LabError(f"cannot start a guest in {str(work)!r}: its name needs plain ASCII without blanks")
    shutil.copyfile(INIT, work / "init")
    (work / "init").chmod(0o700)
    shutil.copyfile(kernel, work / "kernel")
    (work / "command").write_text(script(command, os.geteuid() == 0))
    shared = {str(path) for path in (work, *command.shared)}
    if str(command.cwd).startswith(COVERED):
        shared.add(str(command.cwd))
    (work / "shared").write_text("".join(f"{path}\n" for path in sorted(shared)))


def status(work: Path) -> int | None:
    """The command's exit status (128 + signal when a signal ended it), or None when the guest never wrote one."""
    try:
        return int((work / "status").read_text())
    except (FileNotFoundError, ValueError):
        return None


def console_tail(console: str, most: int = 20) -> str:
    """What an error message quotes of the guest kernel's console: from a panic on, else the last lines."""
    lines = console.splitlines()
    panics = [number for number, line in enumerate(lines) if "Kernel panic" in line]
    chosen = lines[panics[0] :][:most] if panics else lines[-most:]
    return "\n".join(f"    {line}" for line in chosen) or "    (nothing)"


def memory_directory(megabytes: int, environ: Mapping[str, str]) -> str:
    """Where the guest's memory file (sparse, deleted at once) fits: it is mapped, so a full disk would be a crash.

    A memory file system is preferred. Raises LabError when no candidate has the room.
    """
    tried = []
    for directory in ("/dev/shm", environ.get("TMPDIR", "/tmp"), "/var/tmp"):  # noqa: S108
        if not os.access(directory, os.W_OK | os.X_OK):
            continue
        state = os.statvfs(directory)
        free = state.f_bavail * state.f_frsize >> 20
        if state.f_flag & os.ST_NOEXEC:
            tried.append(f"{directory} is mounted noexec")
        elif free < megabytes:
            tried.append(f"{directory} has {free} MB free")
        else:
            return directory
    raise LabError(
        f"cannot give the guest {megabytes} MB of memory: {', '.join(tried) or 'no directory to keep it in'}"
    )
