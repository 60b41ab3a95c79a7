"""What is said of a wrong value: the exceptions that models raise, and how values stand in a message. PURE."""

from collections.abc import Iterable


class Mistake(ValueError):
    """What is wrong with one value, and how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class WrongNumber(Mistake):
    """Not a number, or out of range; the message begins with the value and wants the key's name before it."""


def shown(value: object) -> str:
    """A value for a message: quoted, on one line, at most some 60 characters; lists and mappings by their kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def listed(words: Iterable[str], most: int = 3) -> str:
    """`'a', 'b', 'c' and 4 more`."""
    items = list(words)
    text = ", ".join(f"'{item}'" for item in items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"
