"""What every test shares."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Property tests assert laws, not times: a busy machine must not fail them. The same tests have the same
# examples everywhere; `LBNODE_EXPLORE=1 make check` takes others each time.
settings.register_profile("lbnode", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("LBNODE_EXPLORE") else "lbnode")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with the golden file of it; with --update-golden, writes that file."""

    def compare(path: Path, actual: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(actual, encoding="utf-8")
        assert path.exists(), f"{path} is missing; --update-golden writes it"
        assert actual == path.read_text(encoding="utf-8"), f"{path} differs; --update-golden rewrites it"

    return compare
