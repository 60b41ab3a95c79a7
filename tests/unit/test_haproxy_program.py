"""The haproxy program itself: its version, and what it says of a configuration."""

import os
from pathlib import Path

import pytest

from lbnode.errors import Missing
from lbnode.haproxy import program
from lbnode.paths import Paths


def test_the_installed_version_is_read() -> None:
    assert (2, 4) <= program.version() < (9, 0)


def test_another_program_on_the_path_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an upgrade puts it there: by a rename."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = tmp_path / "asked"

    def install(number: str) -> None:
        script = tmp_path / "new"
        script.write_text(f"#!/bin/sh\necho once >> {asked}\necho HAProxy version {number}\n")
        script.chmod(0o755)
        script.rename(tmp_path / "haproxy")

    install("2.6.12")
    assert [program.version(), program.version()] == [(2, 6), (2, 6)]
    install("3.0.5")
    assert [program.version(), program.version()] == [(3, 0), (3, 0)]
    assert asked.read_text() == "once\n" * 2


def test_without_haproxy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="cannot run haproxy: it is not installed"):
        program.check(tmp_path / "haproxy.cfg")
    with pytest.raises(Missing, match="cannot run haproxy: it is not installed"):
        program.version()


def test_a_good_file_is_accepted_although_its_address_is_not_here(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nfrontend f\n bind 203.0.113.1:1\n"
    )
    assert program.check(file) == ""


def test_all_errors_are_told_with_their_line_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text("defaults\n timeout nonsense 1s\nbackend b\n balance wrong\n server s 192.0.2.1:80 weight 900\n")
    said = program.check(file)
    assert f"[{file}:2]" in said
    assert f"[{file}:4]" in said
    assert "weight of server s is not within 0 and 256" in said
    for noise in ("ALERT", "NOTICE", "WARNING", "Fatal errors", "Error(s) found", f"({os.getpid()})"):
        assert noise not in said


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "No such file" in program.check(tmp_path / "nothing.cfg")


def test_the_command_runs_in_the_foreground_with_the_masters_socket(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "etc", tmp_path / "run")
    assert program.command(paths) == [
        "haproxy",
        "-W",
        "-S",
        f"{tmp_path}/run/haproxy/master.sock,mode,600",
        "-f",
        f"{tmp_path}/etc/generated/haproxy.cfg",
    ]
    assert program.command(paths, notify=True)[1] == "-Ws"


def test_prepare_makes_directories_and_forgets_the_states_of_an_earlier_life(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "etc", tmp_path / "run")
    program.prepare(paths)
    paths.haproxy_state_file.write_text("1\n")
    program.prepare(paths)
    assert not paths.haproxy_state_file.exists()
    assert paths.haproxy_config.parent.is_dir()
