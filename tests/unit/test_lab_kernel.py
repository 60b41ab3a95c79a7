import pytest

from lbnode.lab import kernel, uml
from lbnode.lab.errors import LabError


def test_the_choice_can_be_forced(monkeypatch):
    for choice in kernel.CHOICES:
        monkeypatch.setenv(kernel.CHOICE, choice)
        assert kernel.chosen() == choice


def test_an_unknown_choice_is_refused_by_name(monkeypatch):
    monkeypatch.setenv(kernel.CHOICE, "vm")
    with pytest.raises(LabError, match="'vm' is none of native, uml, smp"):
        kernel.chosen()


def test_an_ordinary_user_is_told_first_of_all(monkeypatch):
    monkeypatch.setattr(kernel.os, "geteuid", lambda: 1000)
    assert len(kernel.missing()) == 1
    assert kernel.missing()[0].startswith("root:")


def test_no_command_is_a_usage_error(capsys):
    assert kernel.main(["--"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_machine_without_user_mode_linux_is_told_what_to_install(monkeypatch, capsys):
    monkeypatch.setenv(kernel.CHOICE, "uml")
    monkeypatch.setattr(uml, "KERNEL", "linux.absent")
    assert kernel.main(["--", "true"]) == 69
    assert "apt-get install user-mode-linux" in capsys.readouterr().err
