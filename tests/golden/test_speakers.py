"""cluster.yaml -> bird.conf and frr.conf, for the first node that announces; the real BIRD and FRR must accept them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lbnode import templates
from lbnode.config.load import parse
from lbnode.roles import speakers

CASES = sorted(path.parent for path in Path(__file__).parent.glob("speakers-*/cluster.yaml"))
CHECKS = {"bird": ("bird", "-p", "-c"), "frr": ("vtysh", "-C", "-f")}


def rendered(case: Path, speaker: speakers.Speaker) -> str:
    cluster = parse((case / "cluster.yaml").read_text(), "cluster.yaml")
    node = next(name for name in cluster.nodes if cluster.announced_by(name))
    return speakers.config(speaker, templates.load(), cluster, node)


def refused(speaker: str, path: Path) -> str:
    """What the program has against a file; "" when it accepts it."""
    done = subprocess.run([*CHECKS[speaker], path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("speaker", ["bird", "frr"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_as_it_was_and_accepted(
    case: Path, speaker: speakers.Speaker, golden: Callable[[Path, str], None], tmp_path: Path
) -> None:
    text = rendered(case, speaker)
    golden(case / f"{speaker}.conf", text)
    here = tmp_path / f"{speaker}.conf"
    here.write_text(text)
    assert refused(speaker, here) == ""


@pytest.mark.parametrize(
    ("speaker", "old", "new", "said"),
    [
        ("bird", "learn;", "lern;", "syntax error"),
        ("bird", "hold time 6;", "hold time six;", "syntax error"),
        ("frr", "import vrf lb-announce", "imprt vrf lb-announce", "Unknown command"),
        ("frr", "set metric 77", "set metric much", "Unknown command"),
    ],
)
def test_the_checks_see_mistakes(speaker: speakers.Speaker, old: str, new: str, said: str, tmp_path: Path) -> None:
    text = rendered(Path(__file__).parent / "speakers-many-attributes", speaker)
    assert old in text
    here = tmp_path / "broken.conf"
    here.write_text(text.replace(old, new))
    assert said in refused(speaker, here)
