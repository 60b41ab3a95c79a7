"""Passwords of BGP sessions: read from their files, put into exabgp.conf, and never shown."""

import stat
from dataclasses import replace

import pytest

from lbnode import templates
from lbnode.bgp import exabgp
from lbnode.bgp.passwords import RULE, read
from lbnode.cli import run
from lbnode.config.load import load
from lbnode.decisions import Decisions
from lbnode.errors import ConfigError
from lbnode.files import FileDriver
from lbnode.health.state import Health
from lbnode.maintenance.state import READY
from lbnode.node import Identity
from lbnode.paths import Paths
from lbnode.plan import diff
from lbnode.resources import File
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.roles.own_check import own_checks

SECRET = "s3cret#;{[(,x"  # noqa: S105
TEXT = """
bgp:
  local_asn: 65001
  peers:
    r1: {{address: 192.0.2.1, asn: 65000, password_file: {file}}}
    r2: {{address: 192.0.2.2, asn: 65000, nodes: [s2], password_file: /nowhere}}
    r3: {{address: 192.0.2.3, asn: 65000}}
nodes: {{s1: {{role: backend, ipv4: 192.0.2.11}}, s2: {{role: backend, ipv4: 192.0.2.12}}}}
pools: {{web: {{}}}}
services: {{www: {{vips: [198.51.100.1], pool: web, through: backend, announce: backend}}}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "r1.password"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def paths(tmp_path, file):
    found = Paths(tmp_path / "etc", tmp_path / "run")
    found.etc.mkdir()
    found.cluster_file.write_text(TEXT.format(file=file))
    return found


def rendered(paths, password=SECRET):
    cluster = load(paths.cluster_file)
    return exabgp.config(templates.load(), cluster, "s1", paths, passwords={"r1": password})


def test_a_node_reads_the_passwords_of_the_peers_it_speaks_with(paths):
    assert read(load(paths.cluster_file), "s1") == {"r1": SECRET}


def spoil(file, content=None, mode=0o600):
    if content is not None:
        file.write_bytes(content)
    file.chmod(mode)


@pytest.mark.parametrize(
    ("content", "mode", "problem", "hint"),
    [
        (None, 0o604, "everybody may use it (mode 0604)", "chmod 600 {file}"),
        (None, 0o602, "everybody may use it (mode 0602)", "chmod 600 {file}"),
        (b"", 0o600, "it is empty", RULE),
        (b"two words", 0o600, "its content cannot be a password", RULE),
        (b"two\nlines\n", 0o600, "its content cannot be a password", RULE),
        (b'quo"te', 0o600, "its content cannot be a password", RULE),
        (b"back\\slash", 0o600, "its content cannot be a password", RULE),
        (b"\xff\xfe\x00garbage", 0o600, "its content cannot be a password", RULE),
        (b"x" * 81, 0o600, "its content cannot be a password", RULE),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_content(paths, file, content, mode, problem, hint):
    spoil(file, content, mode)
    with pytest.raises(ConfigError) as caught:
        read(load(paths.cluster_file), "s1")
    expected = f"cannot use it as the password of BGP peer 'r1': {problem} ({hint.format(file=file)})"
    assert str(caught.value) == f"{file}: {expected}"


def test_a_missing_file_and_one_that_is_no_file_are_told(paths, file):
    file.unlink()
    with pytest.raises(ConfigError, match="No such file or directory"):
        read(load(paths.cluster_file), "s1")
    file.mkdir()
    with pytest.raises(ConfigError, match=r"not a plain file"):
        read(load(paths.cluster_file), "s1")


def test_exabgp_takes_a_password_as_it_stands_and_its_file_is_for_its_group_alone(paths, tmp_path):
    text = rendered(paths)
    assert f'  md5-password "{SECRET}";\n  md5-base64 false;\n' in text
    path = tmp_path / "exabgp.conf"
    path.write_text(text)
    assert exabgp.check(path) == ""
    cluster = load(paths.cluster_file)
    inputs = Inputs(cluster, "s1", templates=templates.load(), paths=paths, passwords={"r1": SECRET})
    files = {row.path: row for row in desired("backend", inputs).rows if isinstance(row, File)}
    row = files[str(paths.exabgp_config)]
    assert (row.mode, row.group) == (0o640, "exabgp")
    assert SECRET not in repr(row) + str(row.settings()) + repr(inputs)
    driver = FileDriver({"exabgp": exabgp.check})
    plan = diff(driver.observe([row]).rows, [row])
    assert [result.error for result in driver.apply(plan.changes)] == [""]
    assert stat.S_IMODE(paths.exabgp_config.stat().st_mode) == 0o640
    assert diff(driver.observe([row]).rows, [row]).changes == ()
    other = replace(row, group="")
    assert SECRET not in str(diff([other], [row])) + str(diff([other], [row]).as_json())


def test_the_digest_changes_with_the_password_and_does_not_give_it_away(paths):
    digests = {exabgp.digest(rendered(paths, password)) for password in (SECRET, "another", "")}
    assert len(digests) == 3
    assert exabgp.digest(rendered(paths)) == exabgp.digest(rendered(paths))
    # Who knows the file but for the password cannot try a dictionary quickly.
    assert exabgp.FINGERPRINT_ROUNDS >= 100_000


def test_render_masks_it(paths, capsys):
    options = ["--etc-dir", str(paths.etc), "--run-dir", str(paths.run), "--node", "s1"]
    assert run(["render", "exabgp", *options]) == 0
    told = capsys.readouterr()
    assert 'md5-password "********";' in told.out
    assert SECRET not in told.out + told.err
    assert run(["render", "exabgp", *options, "--json"]) == 0
    assert SECRET not in capsys.readouterr().out


def test_what_exabgp_says_against_a_file_holds_no_password(paths, tmp_path):
    path = tmp_path / "exabgp.conf"
    path.write_text(rendered(paths).replace("md5-base64 false;", "md5-base64 nonsense;"))
    problem = exabgp.check(path)
    assert problem
    assert SECRET not in problem


def test_an_agent_goes_on_with_the_last_good_password(paths, file):
    cluster = load(paths.cluster_file)
    decisions = Decisions(Identity("s1", "backend", paths))
    health = {check.probe: Health(True) for check in own_checks(cluster, "s1")}
    first = decisions.desired(cluster, READY, health)
    assert decisions.problem == ""
    file.unlink()
    assert decisions.desired(cluster, READY, health) is first
    assert decisions.problem.startswith(f"the last good one stays in force: {file}: cannot use it")
    file.write_text("another")
    file.chmod(0o640)
    assert decisions.desired(cluster, READY, health) is not first
    assert decisions.problem == ""


def test_an_agent_that_has_no_password_yet_says_so(paths, file):
    file.unlink()
    with pytest.raises(ConfigError):
        Decisions(Identity("s1", "backend", paths)).desired(load(paths.cluster_file), READY, {})
