"""Reads the draft out of what is sound in a cluster file (see `lbnode.config.draft`). PURE."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from lbnode.config import dnscheck
from lbnode.config.bgp import Attributes
from lbnode.config.draft import FAMILIES, Draft, DraftNode, DraftPeer, DraftPool, DraftRoute, DraftService
from lbnode.config.http import Clients, FromDns, ServerTls, Tls
from lbnode.config.model import Access, Balancing, Check, Cluster, Node, Service, ServiceProbe
from lbnode.config.positions import Path
from lbnode.config.sound import Sound
from lbnode.config.speaking import speaking


def draft(data: Any, broken: set[Path], lost: set[Path]) -> Draft:
    """`broken`: the paths of wrong or missing values; `lost`: the mappings that may lack keys the operator meant."""
    sound = Sound(data, broken, lost)
    nodes = {name: _node(sound, name) for name in sound.entries(("nodes",))}
    peers = {name: ("bgp", "peers", name, "address") for name in sound.entries(("bgp", "peers"))}
    cables = sound.entries(("bgp", "unnumbered"))  # they carry both families
    known = {name: text for name, path in peers.items() if (text := sound.value(path))}
    return Draft(
        nodes=nodes,
        nodes_known=sound.complete(("nodes",)),
        nodes_complete=sound.complete(("nodes",)) and all(node.role for node in nodes.values()),
        peers=tuple((name, peers[name], ip_address(text)) for name, text in known.items()),
        sessions={name: _peer(sound, name) for name in peers},
        local_asn=sound.number(("bgp", "local_asn"), 0) or None,
        announceable=_announceable(sound),
        announceable_complete=sound.complete(("bgp", "announceable")),
        attributes=sound.section(("bgp", "attributes"), Attributes),
        peers_complete=sound.complete(("bgp", "peers")) and len(known) == len(peers) > 0 and not cables,
        services={name: _service(sound, name) for name in sound.entries(("services",))},
        pools={name: _pool(sound, name) for name in sound.entries(("pools",))},
        pools_complete=sound.complete(("pools",)),
        health_port=sound.number(("health", "port"), Cluster.model_fields["health"].default.port),
        agent_port=sound.number(("agent_check", "port"), Cluster.model_fields["agent_check"].default.port),
        metrics_port=sound.number(("metrics", "port"), Cluster.model_fields["metrics"].default.port),
        proxy_metrics_port=sound.number(
            ("haproxy", "metrics_port"), Cluster.model_fields["haproxy"].default.metrics_port
        ),
        speaking=speaking(sound),
        dns=dnscheck.read(sound),
    )


def _node(sound: Sound, name: str) -> DraftNode:
    path = ("nodes", name)
    texts = {version: sound.value((*path, key)) for version, key in FAMILIES.items()}
    return DraftNode(
        name=name,
        path=path,
        role=sound.value((*path, "role")) or None,
        own={version: ip_address(text) for version, text in texts.items() if text},
        unsure=frozenset(version for version, text in texts.items() if text is None),
        tags=frozenset(tag for _, tag in sound.items((*path, "tags"))),
        weight=sound.number((*path, "weight"), Node.model_fields["weight"].default),
        serial=sound.number((*path, "serial"), 0),
        attributes=sound.section((*path, "attributes"), Attributes),
    )


def _peer(sound: Sound, name: str) -> DraftPeer:
    path: Path = ("bgp", "peers", name)
    address, local = (sound.value((*path, key)) for key in ("address", "local_address"))
    return DraftPeer(
        name=name,
        path=path,
        address=ip_address(address) if address else None,
        asn=sound.number((*path, "asn"), 0) or None,
        nodes=None if sound.value((*path, "nodes")) == "" else sound.items((*path, "nodes")),
        complete=sound.complete((*path, "nodes")),
        local_address=ip_address(local) if local else None,
        attributes=sound.section((*path, "attributes"), Attributes),
        given=frozenset(key for key in sound.entries(path) if (*path, key) not in sound.broken),
    )


def _announceable(sound: Sound) -> tuple[tuple[Path, IPv4Network | IPv6Network], ...] | None:
    path: Path = ("bgp", "announceable")
    if sound.value(path) == "":
        return None
    return tuple((place, ip_network(text)) for place, text in sound.items(path))


def _service(sound: Sound, name: str) -> DraftService:
    path: Path = ("services", name)
    ports = tuple((place, int(text)) for place, text in sound.items((*path, "ports")))
    if sound.value((*path, "ports")) == "":
        ports = tuple((path, port) for port in Service.model_fields["ports"].default)
    return DraftService(
        name=name,
        path=path,
        vips=tuple((place, ip_address(text)) for place, text in sound.items((*path, "vips"))),
        ports=ports,
        pool=sound.value((*path, "pool")) or None,
        through=sound.value((*path, "through"), Service.model_fields["through"].default),
        announce=sound.value((*path, "announce"), Service.model_fields["announce"].default),
        protocol=sound.value((*path, "protocol"), Service.model_fields["protocol"].default),
        quorum=sound.number((*path, "quorum"), Service.model_fields["quorum"].default),
        quorum_high=sound.number((*path, "quorum_high"), 0),
        slow_start_s=sound.number((*path, "slow_start_s"), Service.model_fields["slow_start_s"].default),
        probe=sound.section((*path, "probe"), ServiceProbe),
        ipvs=sound.section((*path, "ipvs"), Balancing),
        access=sound.section((*path, "access"), Access),
        attributes=sound.section((*path, "attributes"), Attributes),
        mode=sound.value((*path, "mode"), Service.model_fields["mode"].default),
        balance=sound.value((*path, "balance"), Service.model_fields["balance"].default),
        tls=sound.section((*path, "tls"), Tls),
        clients=sound.section((*path, "clients"), Clients),
        routes=tuple(_route(sound, (*path, "routes", key)) for key in sound.entries((*path, "routes"))),
        given=frozenset(key for key in sound.entries(path) if (*path, key) not in sound.broken),
    )


def _route(sound: Sound, path: Path) -> DraftRoute:
    return DraftRoute(
        name=str(path[-1]),
        path=path,
        hosts=tuple((place, text.lower()) for place, text in sound.items((*path, "hosts"))),
        paths=sound.items((*path, "paths")),
        pool=sound.value((*path, "pool")) or None,
        complete=sound.complete((*path, "hosts")) and sound.complete((*path, "paths")),
    )


def _pool(sound: Sound, name: str) -> DraftPool:
    path: Path = ("pools", name)
    every = sound.value((*path, "nodes")) == ""
    return DraftPool(
        name=name,
        path=path,
        nodes=None if every else sound.items((*path, "nodes")),
        tags=sound.items((*path, "tags")),
        dns=sound.section((*path, "dns"), FromDns),
        complete=all(sound.complete((*path, key)) for key in ("nodes", "tags")),
        backup=sound.items((*path, "backup")),
        check=sound.section((*path, "check"), Check),
        tls=sound.section((*path, "tls"), ServerTls),
    )
