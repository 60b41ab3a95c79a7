"""The mapping that the cluster file's named parts are: frozen, and in the file's order. PURE."""

from typing import NoReturn, TypeVar

V = TypeVar("V")


class InOrder(dict[str, V]):
    """A frozen mapping that remembers and compares the order of the file, which is the canonical order of
    destinations. Hashable when its values are."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("cannot change the cluster: it is frozen")

    __setitem__ = __delitem__ = __ior__ = update = _refuse
    pop = popitem = clear = setdefault = _refuse

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and list(self.items()) == list(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))

    def __reduce__(self) -> tuple[type, tuple[dict[str, V]]]:
        return type(self), (dict(self),)


def in_order(value: dict[str, V]) -> InOrder[V]:
    return InOrder(value)
