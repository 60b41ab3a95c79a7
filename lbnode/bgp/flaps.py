"""When VIPs were withdrawn because of their real servers, kept in /run for every pass to come, whoever makes it.

{"198.51.100.1": [1795212000.5, 1795212010.25]}     seconds since 1970
"""

import json
from collections.abc import Collection, Mapping

from lbnode.bgp import damping
from lbnode.errors import LbnodeError
from lbnode.paths import Paths

Flaps = Mapping[str, tuple[float, ...]]


def read(paths: Paths) -> Flaps:
    """By VIP. What is not understood counts as never having been. Raises LbnodeError."""
    try:
        data = json.loads(paths.flaps.read_text(encoding="utf-8"))
        return {str(vip): tuple(map(float, times)) for vip, times in data.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}
    except OSError as error:
        raise LbnodeError(f"cannot read {paths.flaps}: {error.strerror}") from error


def note(paths: Paths, vips: Collection[str], rule: damping.Rule, now: float) -> None:
    """These have just been withdrawn. Raises LbnodeError."""
    known = {vip: list(damping.remembered(times, rule, now)) for vip, times in read(paths).items()}
    for vip in vips:
        known.setdefault(vip, []).append(round(now, 3))
    scratch = paths.flaps.with_name(f".{paths.flaps.name}.new")
    try:
        scratch.write_text(json.dumps({vip: times for vip, times in sorted(known.items()) if times}) + "\n")
        scratch.replace(paths.flaps)
    except OSError as error:
        raise LbnodeError(f"cannot write {paths.flaps}: {error.strerror}") from error


def damped(paths: Paths, rule: damping.Rule, now: float) -> dict[str, float]:
    """The VIPs that are damped now, and until when. Raises LbnodeError."""
    ends = {vip: damping.damped_until(damping.remembered(times, rule, now), rule) for vip, times in read(paths).items()}
    return {vip: end for vip, end in ends.items() if end is not None and end > now}
