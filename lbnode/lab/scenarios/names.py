"""Steps about the DNS servers in front: which VIPs they answer names with, and what takes a VIP out of the answers."""

import yaml

from lbnode.config.dns import Dns
from lbnode.lab import dns
from lbnode.lab.build import CLUSTER_FILE
from lbnode.lab.clients.crowd import pairs
from lbnode.lab.clients.dns import Addresses, BadAnswer, ask
from lbnode.lab.errors import LabError
from lbnode.lab.programs import PATHS
from lbnode.lab.scenarios.report import expect
from lbnode.lab.scenarios.stage import Stage

DEADLINE_S = 60.0
LOOK_S = 0.2
NO_SUCH_NAME = 3
NOWHERE = {"type": "http", "path": "/nowhere"}
"""A probe that every backend answers with 404."""

Answers = dict[tuple[str, str, int], frozenset[str]]
"""By DNS server's address, name and family."""


def names(stage: Stage) -> None:
    """Every name, by both servers and both families; a group of VIPs that is withdrawn; an operator's file."""
    expected = _expected(stage)
    stage.wait(lambda: _answers(stage) == expected, DEADLINE_S, "every name with all of its VIPs", LOOK_S)
    _strangers(stage)
    for name in _section(stage).names:
        told = _reachable(stage, name)
        stage.report.found(f"{name}.{_section(stage).zone}: {', '.join(told)}, and each answers HTTP")
    _group_withdrawn(stage, "sh")
    _taken_out(stage, "mh")


def _section(stage: Stage) -> Dns:
    found = stage.lab.topology.cluster.dns
    if found is None:
        raise LabError(f"cannot ask for names: {stage.lab.topology.cluster_file} has no section dns")
    return found


def _expected(stage: Stage, without: frozenset[str] = frozenset()) -> Answers:
    """What is answered when the VIPs in `without` are out; all are when none of a family is left."""
    services, section = stage.lab.topology.cluster.services, _section(stage)
    found: Answers = {}
    for name, entry in section.names.items():
        for version in (4, 6):
            every = {str(vip) for one in entry.services for vip in services[one].vips if vip.version == version}
            for server in section.servers.values():
                found |= {(str(own), name, version): frozenset(every - without or every) for own in server.addresses}
    return found


def _answers(stage: Stage, server: str = "") -> Answers:
    """What is answered now, by all servers or by one; nothing where none comes."""
    section = _section(stage)
    return {
        (str(own), name, version): _ask(stage, str(own), f"{name}.{section.zone}", version).addresses
        for label, one in section.servers.items()
        for own in (one.addresses if server in ("", label) else ())
        for name in section.names
        for version in (4, 6)
    }


def _ask(stage: Stage, server: str, name: str, version: int) -> Addresses:
    """One question from the first client of the server's family."""
    users = stage.lab.topology.clients
    source = users.addresses(6 if ":" in server else 4)[0]
    try:
        return stage.node(users.name).call(lambda: ask(server, name, version, source))
    except (OSError, BadAnswer):
        return Addresses(-1, authoritative=False)


def _strangers(stage: Stage) -> None:
    """A name that is not there is denied, with authority."""
    section = _section(stage)
    server = str(next(iter(section.servers.values())).addresses[0])
    told = _ask(stage, server, f"nobody.{section.zone}", 4)
    expect((told.code, told.authoritative) == (NO_SUCH_NAME, True), "no such name, said with authority", told)


def _reachable(stage: Stage, name: str) -> list[str]:
    """The addresses behind a name as clients get them, after each has answered a request."""
    answers = _answers(stage)
    vips = sorted({vip for (_, one, _), found in answers.items() if one == name for vip in found})
    replies = stage.crowd.ask(pairs(vips, [*stage.clients[:5], *stage.clients[-5:]]))
    bad = [reply for reply in replies if reply.status != 200]
    expect(replies and not bad, f"an answer from every address of {name}", bad[:2])
    return vips


def _group_withdrawn(stage: Stage, group: str) -> None:
    """A service that fails on all real servers is withdrawn by all L4 nodes: its VIPs leave the answers, and come back
    with it."""
    text = stage.lab.topology.cluster_file.read_text(encoding="utf-8")
    cluster = yaml.safe_load(text)
    cluster["services"][group]["probe"] = NOWHERE
    vips = frozenset(map(str, stage.lab.topology.cluster.services[group].vips))
    gone, back = _expected(stage, vips), _expected(stage)

    def routed() -> set[str]:
        return {vip for vip in vips for router in stage.routes if stage.carriers(router, vip)}

    for name in stage.l4:
        stage.node(name).write(CLUSTER_FILE, yaml.safe_dump(cluster, sort_keys=False))
    seconds = stage.wait(lambda: not routed(), DEADLINE_S, f"the VIPs of {group} withdrawn by all L4 nodes")
    stage.report.found(f"{group} fails everywhere: withdrawn by all L4 nodes after {seconds:.1f} s")
    seconds = stage.wait(lambda: _answers(stage) == gone, DEADLINE_S, f"answers without {group}", LOOK_S)
    stage.report.times("dns_out_s", f"{group} withdrawn -> out of the answers of both servers", [seconds])
    left = _reachable(stage, "www")
    expect(not vips & set(left), f"www without {group}", left)
    stage.report.found(f"www: {', '.join(left)}; a name whose VIPs are all down keeps them")
    for name in stage.l4:
        stage.node(name).write(CLUSTER_FILE, text)
    stage.wait(lambda: routed() == vips, DEADLINE_S, f"the VIPs of {group} announced again")
    seconds = stage.wait(lambda: _answers(stage) == back, DEADLINE_S, f"answers with {group}", LOOK_S)
    stage.report.times("dns_back_s", f"{group} announced again -> in the answers of both servers", [seconds])
    stage.wait(lambda: all(map(stage.routed_fully, stage.l4)), DEADLINE_S, "every VIP by every L4 node")


def _taken_out(stage: Stage, group: str) -> None:
    """By an operator, on one DNS server: its file takes effect there, and nowhere else."""
    first, *others = dns.servers(stage.lab.topology)
    vips = frozenset(map(str, stage.lab.topology.cluster.services[group].vips))
    gone, back = _expected(stage, vips), _expected(stage)

    def right(server: str, expected: Answers) -> bool:
        found = _answers(stage, server)
        return found == {key: expected[key] for key in found}

    stage.node(first).write(PATHS.dns_addresses, "".join(f"{vip} => DOWN\n" for vip in sorted(vips)))
    seconds = stage.wait(lambda: right(first, gone), DEADLINE_S, f"{first} to leave out {group}", LOOK_S)
    stage.report.times("dns_file_out_s", f"{PATHS.dns_addresses} on {first} -> {group} out of its answers", [seconds])
    expect(all(right(other, back) for other in others), f"the others to answer as before: {others}", _answers(stage))
    stage.node(first).write(PATHS.dns_addresses, "")
    seconds = stage.wait(lambda: right(first, back), DEADLINE_S, f"{first} to answer with {group}", LOOK_S)
    stage.report.times("dns_file_back_s", f"the file emptied -> {group} in its answers again", [seconds])
