"""Our own nftables table, as rows: who may reach a service, how fast, from whom tunnelled packets are taken, firewall
marks, the MSS that clients are told.

The table is `inet lbnode` of the network namespace, and nothing outside it is read or touched. When anything in it must
change, all of it is replaced in one transaction, which the kernel takes as a whole or not at all: no packet meets half
a table. What a SYN limit has let through, and the counters, then begin anew.

A node that wants no table needs neither the program nft nor a kernel with nf_tables. Where there is one, it is read
again only after something has changed.
"""

import errno
import subprocess
from collections.abc import Sequence

from lbnode.drivers import Observed, Result
from lbnode.errors import LbnodeError, Missing, NotPermitted, NotReady
from lbnode.net import nfnetlink, nftables, nftlisting
from lbnode.plan import Change
from lbnode.resources import FilterDamage, Key, MssClamp, PacketMark, Row, SourceAllow, SynLimit, TunnelGuard

DEADLINE_S = 30.0
TABLE = f"table {nftables.FAMILY} {nftables.TABLE}"
STDIN = "/proc/self/fd/0"  # nft takes "-" for /dev/stdin, which not every system has
ROOT = "that needs root (CAP_NET_ADMIN)"
NO_KERNEL = "this kernel has no nf_tables: load the module nf_tables, or use a kernel with CONFIG_NF_TABLES_INET"


class FilterDriver:
    """Reads and writes the rows of our nftables table, in the network namespace of the calling thread."""

    kinds: tuple[type[Row], ...] = (SourceAllow, SynLimit, PacketMark, MssClamp, TunnelGuard, FilterDamage)

    def __init__(self) -> None:
        self._read_at: nfnetlink.Generation | None = None
        self._rows: tuple[Row, ...] = ()

    def observe(self, wanted: Sequence[Row]) -> Observed:
        """What the table says; nothing where there is none, be it because the kernel has no nf_tables.

        Raises NotPermitted (not when nothing is wanted), Missing (a table, but no nft to read it), NotReady.
        """
        what = f"cannot read {TABLE}"
        try:
            now = nfnetlink.generation()
            if now != self._read_at:
                self._rows = _read(what) if nfnetlink.has_table(nftables.TABLE) else ()
                self._read_at = now
        except OSError as error:
            if error.errno in nfnetlink.NO_NF_TABLES or (error.errno == errno.EPERM and not wanted):
                return Observed()
            raise _explained(what, error) from error
        return Observed(nftlisting.in_words_of(wanted, self._rows))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """All of them at once, or none."""
        try:
            before = {row.key: row for row in self.observe([change.new for change in changes if change.new]).rows}
            after: dict[Key, Row] = {key: row for key, row in before.items() if not isinstance(row, FilterDamage)}
            for change in changes:
                after.pop(change.row.key, None)
                if change.new is not None:
                    after[change.new.key] = change.new
            if after != before:
                _replace(tuple(after.values()))
        except LbnodeError as error:
            return [Result(change, str(error)) for change in changes]
        return [Result(change) for change in changes]


def _read(what: str) -> tuple[Row, ...]:
    try:
        return nftlisting.rows(_nft(what, "list", "table", nftables.FAMILY, nftables.TABLE))
    except ValueError as error:
        raise NotReady(f"{what}: nft's answer makes no sense: {error}") from error


def _replace(rows: Sequence[Row]) -> None:
    what = f"cannot write {TABLE}"
    try:
        nfnetlink.try_table(nftables.TABLE)
    except OSError as error:
        raise _explained(what, error) from error
    _nft(what, "-f", STDIN, given=nftables.replacement(rows))


def _nft(what: str, *arguments: str, given: str = "") -> str:
    """Runs nft and returns what it prints. Raises Missing, NotReady."""
    argv = ["nft", "-j", "-n", *arguments]
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    except FileNotFoundError as error:
        raise Missing(f"{what}: the program nft is not installed (package nftables)") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReady(f"{what}: cannot run nft: {error}") from error
    if done.returncode != 0:
        raise NotReady(f"{what}: nft says: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout


def _explained(what: str, error: OSError) -> LbnodeError:
    if error.errno in nfnetlink.NO_NF_TABLES:
        return Missing(f"{what}: {NO_KERNEL}")
    if error.errno == errno.EPERM:
        return NotPermitted(f"{what}: {ROOT}")
    return NotReady(f"{what}: {error.strerror or error}")
