"""Templates: shipped ones and the operator's own, loaded once, rendered as a pure function.

The shipped ones stand in the repository's `templates/` and travel inside the wheel; a file of the same name in the
operator's directory (/etc/lb/templates) wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lbnode.errors import LbnodeError, Missing

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def share(folder: str) -> Path:
    """A folder of data that travels with the package: inside it when installed, beside it in a checkout."""
    for place in (HERE / "share" / folder, HERE.parent / folder):
        if place.is_dir():
            return place
    raise Missing(f"cannot find the {folder} that came with lbnode: neither inside the package nor beside it")


@dataclass(frozen=True)
class Templates:
    """Sources by name, as read; `origin` says which file each came from, for messages."""

    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    origin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def render(self, name: str, **values: Any) -> str:
        """Raises LbnodeError that names the template file and line, when the template is wrong or lacks a value."""
        from jinja2 import TemplateError, TemplateSyntaxError

        environment = _environment(tuple(self.sources.items()))
        where = self.origin.get(name, name)
        try:
            return environment.get_template(name).render(**values)
        except TemplateSyntaxError as error:
            raise LbnodeError(f"cannot render {where}:{error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise LbnodeError(f"cannot render {where}: {error.message}") from error


@lru_cache(maxsize=4)
def _environment(sources: tuple[tuple[str, str], ...]) -> "Environment":
    """Keeps what it has compiled: an agent renders in every pass, and compiling costs a hundred times more."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    return Environment(  # noqa: S701 - haproxy.cfg and exabgp.conf are not HTML; values are validated
        loader=DictLoader(dict(sources)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def load(own: Path | None = None) -> Templates:
    """All shipped `*.j2`, replaced one by one by those in `own`, when that directory exists."""
    folders = [share("templates")] + ([own] if own and own.is_dir() else [])
    files = {path.name: path for folder in folders for path in sorted(folder.glob("*.j2"))}
    return Templates(
        MappingProxyType({name: path.read_text(encoding="utf-8") for name, path in files.items()}),
        MappingProxyType({name: str(path) for name, path in files.items()}),
    )
