"""What a QEMU guest starts from, without booting one."""

import lzma
import os
import stat
import subprocess
from pathlib import Path

import pytest

from lbnode.lab import debian, initramfs, kernel, smp
from lbnode.lab.errors import LabError


def cached(home: Path, package: str = "linux-image-6.1.0-1-amd64", dependencies: bool = True) -> dict[str, str]:
    """An environment whose cache holds a kernel (of no bytes); 9p needs netfs, and 9pnet, which is compressed."""
    version = package.removeprefix("linux-image-")
    modules = home / "lbnode/smp" / package / "lib/modules" / version
    modules.mkdir(parents=True)
    (modules.parents[2] / "boot").mkdir()
    (modules.parents[2] / "boot" / f"vmlinuz-{version}").touch()
    (modules / "fs").mkdir()
    (modules / "fs/9p.ko").write_bytes(b"9p module")
    (modules / "fs/netfs.ko").write_bytes(b"netfs module")
    (modules / "fs/9pnet.ko.xz").write_bytes(lzma.compress(b"9pnet module"))
    if dependencies:
        (modules / "modules.dep").write_text("fs/9p.ko: fs/netfs.ko fs/9pnet.ko.xz\nfs/netfs.ko:\nfs/9pnet.ko.xz:\n")
    return {"XDG_CACHE_HOME": str(home)}


def test_a_kernel_in_the_cache_is_used(tmp_path: Path) -> None:
    found = debian.image(cached(tmp_path))
    assert found.version == "6.1.0-1-amd64"
    assert found.kernel.is_file()
    assert found.modules.is_dir()


def test_the_newest_kernel_is_used(tmp_path: Path) -> None:
    environ = cached(tmp_path, "linux-image-6.1.0-10-amd64")
    cached(tmp_path, "linux-image-6.1.0-9-amd64")
    os.utime(tmp_path / "lbnode/smp/linux-image-6.1.0-9-amd64", (1, 1))
    assert debian.image(environ).version == "6.1.0-10-amd64"


def test_a_kernel_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"linux-image-6\.1\.0-1-amd64: it is not whole; delete"):
        debian.image(cached(tmp_path, dependencies=False))


def test_without_apt_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt-cache is not installed"):
        debian.image({"XDG_CACHE_HOME": str(tmp_path)})


def test_the_first_file_system_holds_busybox_the_modules_and_the_way_on(tmp_path: Path) -> None:
    """Read back by busybox's own cpio."""
    image = debian.image(cached(tmp_path / "it's a cache"))
    written = initramfs.build(image, Path("/tmp/work/init"))  # noqa: S108
    subprocess.run(["busybox", "cpio", "-i", "-d"], cwd=tmp_path, input=written, check=True, capture_output=True)
    assert (tmp_path / "9p.ko").read_bytes() == b"9p module"
    assert (tmp_path / "9pnet.ko.xz").read_bytes() == b"9pnet module"
    script = (tmp_path / "init").read_text()
    assert "for module in 9pnet.ko.xz netfs.ko 9p.ko; do" in script
    assert "exec /bin/busybox switch_root /root /tmp/work/init" in script
    assert subprocess.run(["sh", "-n", str(tmp_path / "init")], check=False).returncode == 0
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
    assert os.access(tmp_path / "bin/busybox", os.X_OK)


@pytest.mark.parametrize("script", [smp.Emulated.script, smp.Emulated.script.with_name("init.sh")])
def test_the_scripts_of_the_guest_are_scripts(script: Path) -> None:
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_a_machine_without_qemu_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cached(tmp_path)["XDG_CACHE_HOME"])
    monkeypatch.setenv(kernel.CHOICE, "smp")
    monkeypatch.setattr(smp, "QEMU", "qemu-absent")
    assert kernel.main(["--", "true"]) == 69
    assert "apt-get install qemu-system-x86" in capsys.readouterr().err
