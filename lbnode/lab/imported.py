"""What is imported only when somebody asks for it by name: a scenario of the lab, a stack."""

import importlib
from typing import Any


def imported(where: str) -> Any:
    """What stands at `package.module:name`."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
