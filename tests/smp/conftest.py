"""What the tests on the two-processor kernel share: being on it."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def two_processors() -> None:
    """These tests prove nothing on one: `lbnode lab kernel --smp -- pytest tests/smp`."""
    assert len(os.sched_getaffinity(0)) > 1
