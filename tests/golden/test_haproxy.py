"""cluster.yaml -> haproxy.cfg and its tables, for the first L7 node of the file; the real HAProxy must accept each."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lbnode import templates
from lbnode.config.load import parse
from lbnode.config.model import Cluster
from lbnode.haproxy import program, render, statefile, tables
from lbnode.paths import Paths

CASES = sorted(path.parent for path in Path(__file__).parent.glob("haproxy-*/cluster.yaml"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate with its key, as PEM."""
    folder = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=www.example.com", "-days", "2"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run([*argv, *files], check=True, capture_output=True)
    return (folder / "crt").read_text() + (folder / "key").read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_as_it_was_and_accepted_by_haproxy(
    case: Path, golden: Callable[[Path, str], None], tmp_path: Path, certificate: str
) -> None:
    text = (case / "cluster.yaml").read_text()
    cluster = Cluster.model_validate(yaml.safe_load(text))
    node = next(iter(cluster.with_role("l7")))
    golden(case / "haproxy.cfg", render.config(templates.load(), cluster, node, Paths(), (2, 6)).text)
    for table in tables.tables(cluster, Paths()):
        if table.entries and ":" in table.path:
            golden(case / Path(table.path).name.replace(":", "."), table.content)
    assert accepted(text.replace("/etc/lb/", f"{tmp_path}/"), node, tmp_path, certificate) == ""


def accepted(text: str, node: str, folder: Path, certificate: str) -> str:
    """What HAProxy has against the same with its files in a folder, where all that it reads is there."""
    paths = Paths(folder, folder)
    cluster = Cluster.model_validate(yaml.safe_load(text))
    for name in re.findall(rf"{folder}/[\w./-]+", text):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(certificate if name.endswith(".pem") else "<html>A page</html>\n")
    config = render.config(templates.load(), cluster, node, paths, program.version()).text
    for path, content in [(t.path, t.content) for t in tables.tables(cluster, paths)] + [
        (str(paths.haproxy_config), config),
        (str(paths.haproxy_state_file), statefile.content([], "")),
    ]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    # -dW: a warning is an error.
    argv = ["haproxy", "-c", "-dW", "-f", str(paths.haproxy_config)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_each_case_is_what_lbnode_check_takes() -> None:
    for case in CASES:
        text = (case / "cluster.yaml").read_text()
        if "role: l4" in text:
            parse(text, str(case))
