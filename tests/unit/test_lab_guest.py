"""What a guest is handed, without booting one."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from lbnode.lab import guest, uml, xstate
from lbnode.lab.errors import LabError


def command(*argv: str, cwd: Path = Path("/"), **env: str) -> guest.Command:
    return guest.Command(argv, cwd, env)


def test_the_script_becomes_the_command_with_directory_environment_and_arguments_intact(tmp_path):
    awkward = "a 'b' \"c\" $d `e` \\ \n f"
    directory = tmp_path / "with blank"
    directory.mkdir()
    program = 'import os, sys; print([os.getcwd(), os.environ["NAME"], sys.argv[1:]])'
    text = guest.script(command("python3", "-c", program, awkward, "", cwd=directory, NAME=awkward), True)
    answer = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert answer == f"{[str(directory), awkward, [awkward, '']]}\n"


def test_the_command_gets_roots_path_and_cannot_start_a_second_guest():
    env = guest.environment({"PATH": "/opt/x:/usr/bin", "LBNODE_LAB_KERNEL": "uml"}, True)
    assert env["PATH"].startswith("/opt/x:/usr/bin:")
    assert "/usr/sbin" in env["PATH"].split(":")
    assert env["LBNODE_LAB_KERNEL"] == "native"


def test_an_ordinary_users_temporary_files_are_the_guests_own():
    assert "TMPDIR" not in guest.environment({}, True)
    assert guest.environment({}, False)["TMPDIR"] == "/dev/shm"  # noqa: S108
    assert guest.environment({"TMPDIR": "/home/me/tmp"}, False)["TMPDIR"] == "/home/me/tmp"


def test_the_work_directory_and_what_was_asked_for_are_shared_and_the_current_one_where_the_guest_covers_it(tmp_path):
    wanted = (Path("/srv/a"), Path("/run/user/7/b"))
    guest.prepare(tmp_path, guest.Command(("true",), Path("/run/here"), {}, wanted), uml.UserMode.script)
    shared = {"/run/here", "/run/user/7/b", "/srv/a", str(tmp_path)}
    assert set((tmp_path / "shared").read_text().splitlines()) == shared
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o700
    guest.prepare(tmp_path, command("true", cwd=Path("/srv/b")), uml.UserMode.script)
    assert (tmp_path / "shared").read_text() == f"{tmp_path}\n"


def test_a_work_directory_must_fit_on_a_kernel_command_line(tmp_path):
    with pytest.raises(LabError, match="without blanks"):
        guest.prepare(tmp_path / "a b", command("true"), uml.UserMode.script)


def test_the_status_is_there_or_it_is_not(tmp_path):
    assert guest.status(tmp_path) is None
    (tmp_path / "status").write_text("143\n")
    assert guest.status(tmp_path) == 143


def test_a_panic_is_quoted_from_its_first_line():
    console = "\n".join(["boring"] * 30 + ["Kernel panic - not syncing: Attempted to kill init!", *["trace"] * 40])
    assert guest.console_tail(console, most=3).splitlines() == [
        "    Kernel panic - not syncing: Attempted to kill init!",
        "    trace",
        "    trace",
    ]
    assert guest.console_tail("", 3) == "    (nothing)"


def test_memory_goes_where_it_fits():
    assert Path(guest.memory_directory(1, os.environ)).is_dir()
    with pytest.raises(LabError, match="MB free"):
        guest.memory_directory(1 << 40, {})


def test_the_cure_for_amx_is_for_amx_only():
    assert xstate.needed("processor : 0\nflags\t\t: fpu avx512f amx_tile amx_int8\n")
    assert not xstate.needed("processor : 0\nflags\t\t: fpu avx512f\n")
    assert not xstate.needed("")


def test_without_a_compiler_the_error_names_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt-get install gcc"):
        xstate.build(tmp_path)
