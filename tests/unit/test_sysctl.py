"""Kernel settings, in a directory made like /proc/sys."""

from pathlib import Path

import pytest

from lbnode.net.sysctl import SysctlDriver
from lbnode.plan import Change, diff
from lbnode.resources import Sysctl

FORWARD = Sysctl("net.ipv4.ip_forward", "1")
SLOPPY = Sysctl("net.ipv4.vs.sloppy_tcp", "1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, value in {
        "ip_forward": "0\n",
        "tcp_rmem": "4096\t131072\t6291456\n",
        "conf/lb-v4/rp_filter": "2\n",
    }.items():
        path = tmp_path / "net/ipv4" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return tmp_path


def run(root: Path, *wanted: Sysctl, modprobe: tuple[str, ...] = ("false",)) -> list[str]:
    """One pass; the errors."""
    driver = SysctlDriver(root, modprobe)
    return [result.error for result in driver.apply(diff(driver.observe(wanted).rows, wanted).changes)]


def test_a_setting_is_read_written_and_then_right(root: Path) -> None:
    driver = SysctlDriver(root)
    assert driver.observe([FORWARD]).rows == (Sysctl("net.ipv4.ip_forward", "0"),)
    assert run(root, FORWARD) == [""]
    assert (root / "net/ipv4/ip_forward").read_text().strip() == "1"
    assert not diff(driver.observe([FORWARD]).rows, [FORWARD])


@pytest.mark.parametrize("value", ["4096\t131072\t6291456", "4096 131072 6291456"])
def test_white_space_makes_no_difference(root: Path, value: str) -> None:
    wanted = [Sysctl("net.ipv4.tcp_rmem", value)]
    assert not diff(SysctlDriver(root).observe(wanted).rows, wanted)


def test_a_setting_of_a_device_of_ours_is_found(root: Path) -> None:
    wanted = Sysctl("net.ipv4.conf.lb-v4.rp_filter", "0")
    assert run(root, wanted) == [""]
    assert (root / "net/ipv4/conf/lb-v4/rp_filter").read_text().strip() == "0"


def test_a_slash_stands_for_a_dot_in_a_name(root: Path) -> None:
    path = root / "net/ipv4/conf/eth0.100/rp_filter"
    path.parent.mkdir()
    path.write_text("1\n")
    assert run(root, Sysctl("net.ipv4.conf.eth0/100.rp_filter", "0")) == [""]
    assert path.read_text().strip() == "0"


def test_a_setting_that_does_not_exist_has_no_row_and_cannot_be_made(root: Path) -> None:
    missing = Sysctl("net.ipv4.no_such", "1")
    assert SysctlDriver(root).observe([missing]).rows == ()
    assert run(root, missing, FORWARD) == ["", "cannot set net.ipv4.no_such to 1: this kernel has no such setting"]
    assert not (root / "net/ipv4/no_such").exists()


def test_a_missing_module_is_loaded_first(root: Path, tmp_path: Path) -> None:
    loader = tmp_path / "modprobe"
    directory = root / "net/ipv4/vs"
    loader.write_text(f'#!/bin/sh\n[ "$1" = ip_vs ] && mkdir {directory} && echo 0 >{directory}/sloppy_tcp\n')
    loader.chmod(0o755)
    assert run(root, SLOPPY, modprobe=(str(loader),)) == [""]
    assert (directory / "sloppy_tcp").read_text().strip() == "1"


@pytest.mark.parametrize(
    ("modprobe", "why"),
    [
        (
            ("sh", "-c", "echo FATAL: Module ip_vs not found >&2; exit 1"),
            ", and modprobe says: FATAL: Module ip_vs not found",
        ),
        (("false",), ", and modprobe says: status 1"),
        (("true",), " in this network namespace, although modprobe loaded it"),
        (("/nonexistent/modprobe",), ", and modprobe cannot be run: "),
    ],
)
def test_a_module_that_cannot_be_had_is_named(root: Path, modprobe: tuple[str, ...], why: str) -> None:
    (error,) = run(root, SLOPPY, modprobe=modprobe)
    assert error.startswith(f"cannot set net.ipv4.vs.sloppy_tcp: the kernel module ip_vs is not loaded{why}")


def test_a_setting_is_never_removed(root: Path) -> None:
    (result,) = SysctlDriver(root).apply([Change(FORWARD, None)])
    assert result.error.startswith("cannot remove net.ipv4.ip_forward")
    assert (root / "net/ipv4/ip_forward").read_text() == "0\n"
