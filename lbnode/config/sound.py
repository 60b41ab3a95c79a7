"""What is sound in a cluster file that may be partly broken: all that no other finding speaks of. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbnode.config.frozen import Model
from lbnode.config.positions import Path
from lbnode.config.words import at


@dataclass(frozen=True)
class Section:
    """One mapping of settings: `values` by key, as written or by default, without those that another finding speaks of;
    `given` holds the keys that were written with a sound value."""

    path: Path
    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, key: str) -> Any:
        """None when it is not known, or is none."""
        return self.values.get(key)

    def at(self, *keys: str | int) -> Path:
        return (*self.path, *keys)


@dataclass(frozen=True)
class Sound:
    """The data (as read: text, lists, mappings) without its broken parts."""

    data: Any
    broken: set[Path]
    lost: set[Path]

    def entries(self, path: Path) -> dict[str, Any]:
        value = at(self.data, path)
        return value if isinstance(value, dict) else {}

    def complete(self, path: Path) -> bool:
        """Whether nothing is wrong with this very mapping or list (its entries may be wrong in themselves)."""
        value = at(self.data, path)
        if self.is_broken(path) or path in self.lost or (value is None and path[:-1] in self.lost):
            return False
        return not any((*path, index) in self.broken for index in range(len(value or ())))

    def is_broken(self, path: Path) -> bool:
        return bool(self.broken) and any(path[:end] in self.broken for end in range(len(path) + 1))

    def value(self, path: Path, default: str = "") -> str | None:
        """The text at `path`; `default` when it was certainly left out; None when that is not known."""
        found = at(self.data, path)
        if self.is_broken(path) or (found is None and path[:-1] in self.lost):
            return None
        return default if found is None else str(found)

    def number(self, path: Path, default: int) -> int | None:
        text = self.value(path, str(default))
        return None if text is None else int(text)

    def section(self, path: Path, model: type[Model]) -> Section:
        """What is known of a mapping all of whose keys have defaults."""
        written = self.entries(path)
        if self.is_broken(path) or (not written and path[:-1] in self.lost):
            return Section(path, {}, frozenset())
        wrong = {broken[len(path)] for broken in self.broken if broken[: len(path)] == path}
        given = frozenset(key for key in model.model_fields if key in written and key not in wrong)
        left_out = () if path in self.lost else model.model_fields.keys() - written.keys()
        sound = model.model_validate({key: written[key] for key in given})
        return Section(path, {key: getattr(sound, key) for key in (*given, *left_out)}, given)

    def items(self, path: Path) -> tuple[tuple[Path, str], ...]:
        """The sound entries of a list."""
        value = at(self.data, path)
        paths = [(*path, index) for index in range(len(value))] if isinstance(value, list) else []
        return tuple((place, str(at(self.data, place))) for place in paths if place not in self.broken)
