"""What the caller may do, and what is left of the system's limits. PURE."""

from dataclasses import dataclass

from lbnode.doctor.finding import Finding, persistent

CAP_NET_ADMIN = 12  # linux/capability.h
LEAST_INSTANCES, LEAST_WATCHES = 16, 512
"""lbnode holds two instances and a handful of watches; the rest is for the other programs of the same user."""


def net_admin(effective: int) -> Finding:
    """`effective` is CapEff of /proc/self/status."""
    if effective >> CAP_NET_ADMIN & 1:
        return Finding("CAP_NET_ADMIN", "ok", "held")
    mend = "run it as root (sudo lbnode ...), or as a unit with AmbientCapabilities=CAP_NET_ADMIN"
    return Finding("CAP_NET_ADMIN", "fail", "not held: IPVS, devices and settings cannot be changed", mend)


def writable(path: str, problem: str) -> Finding:
    """`problem` is why lbnode cannot write into the directory, "" when it can."""
    label = f"write {path}"
    if not problem:
        return Finding(label, "ok", "can be written")
    return Finding(label, "fail", problem, f"run it as root, or: install -d -o $USER {path}")


@dataclass(frozen=True)
class Inotify:
    """The limits of the caller's user, and what a new watch was refused with ("" when it was given)."""

    instances: int
    watches: int
    refused: str = ""


def inotify(limits: Inotify) -> Finding:
    """Without inotify the agent does not see maintenance files, nor ExaBGP's relay its orders."""
    seen = f"{limits.instances} instances, {limits.watches} watches a user"
    mend = persistent("fs.inotify.max_user_instances", "1024")
    if limits.watches < LEAST_WATCHES:
        mend = persistent("fs.inotify.max_user_watches", "65536")
    if limits.refused:
        return Finding("inotify", "fail", f"{seen}: none left ({limits.refused}), files are not followed", mend)
    if limits.instances < LEAST_INSTANCES or limits.watches < LEAST_WATCHES:
        return Finding("inotify", "warn", f"{seen}: few, and shared with every program of that user", mend)
    return Finding("inotify", "ok", seen)
