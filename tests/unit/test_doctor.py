"""What each check of the doctor makes of given facts, and what its readers make of given files."""

import json
from collections.abc import Iterable
from pathlib import Path

import cluster
import pytest

from lbnode.cli import run
from lbnode.doctor import devices, host, modules, packets, programs, rights, rules, settings
from lbnode.doctor.finding import Finding
from lbnode.doctor.packets import Way
from lbnode.doctor.rights import Inotify
from lbnode.doctor.settings import Listener
from lbnode.haproxy import render
from lbnode.paths import Paths
from lbnode.resources import (
    Address,
    FilterDamage,
    FouPort,
    Link,
    MssClamp,
    Running,
    ServiceKey,
    SourceAllow,
    SynLimit,
    Sysctl,
    VirtualService,
)
from lbnode.roles import desired
from lbnode.roles.inputs import Inputs
from lbnode.templates import load

APPLY = "lbnode apply --role l4"
KEY = ServiceKey("198.51.100.1", "tcp", 80)
TUNNELS = {version: packets.Tunnel(version, outer, 1500, clamped=True) for version, outer in ((4, 20), (6, 40))}


def short(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.name, finding.verdict) for finding in findings]


def test_a_finding_reads_as_one_line_and_its_mend() -> None:
    assert str(Finding("vips", "ok", "3 in place")) == "ok      vips: 3 in place"
    text = str(Finding("vips", "fail", "1 of 3 missing", APPLY))
    assert text == "FAIL    vips: 1 of 3 missing\n        mend: lbnode apply --role l4"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l4-1", ("dummy", "ip6_tunnel", "ip_vs", "ip_vs_rr", "ip_vs_mh")),
        ("l7-1", ("dummy", "ipip", "ip6_tunnel")),
        ("s1", ("dummy", "ip6_tunnel")),
    ],
)
def test_the_rows_of_a_role_say_which_modules_it_needs(name: str, expected: tuple[str, ...]) -> None:
    whole = cluster.small()
    rows = desired(whole.nodes[name].role, Inputs(whole, name, templates=load())).rows
    assert modules.needed(rows) == expected


@pytest.mark.parametrize(
    ("tunnel", "expected"),
    [("gre", {"dummy", "ip_gre", "ip6_gre"}), ("gue", {"dummy", "ipip", "ip6_tunnel", "fou"})],
)
def test_every_tunnel_has_its_modules_and_its_loss(tunnel: str, expected: set[str]) -> None:
    whole = cluster.small("ports: [80, 443], pool: web", f"pool: web, ipvs: {{tunnel: {tunnel}}}")
    rows = desired("l7", Inputs(whole, "l7-1", templates=load())).rows
    assert set(modules.needed(rows)) == expected
    links = [row for row in rows if isinstance(row, Link)]
    found = devices.check((), links, (), APPLY)
    assert {finding.name.split()[1] for finding in found} == {link.name for link in links}
    assert {finding.verdict for finding in found} == {"fail"}


def test_modules_that_are_there_or_will_be_are_good() -> None:
    states = {"ip_vs": "loaded", "dummy": "built-in", "ip_vs_mh": "loadable"}
    (found,) = modules.check(states, "6.1")
    assert found == Finding("modules", "ok", "ip_vs loaded, dummy built-in, ip_vs_mh loadable")
    good, bad = modules.check(states, "6.1", locked=True)
    assert good.seen == "ip_vs loaded, dummy built-in"
    assert (bad.name, bad.verdict) == ("module ip_vs_mh", "fail")
    assert "kernel.modules_disabled" in bad.mend


def test_a_missing_module_fails_and_an_unseen_one_is_unknown() -> None:
    missing, unseen = modules.check({"ipip": "missing", "dummy": "unknown"}, "6.1-cloud")
    assert (missing.verdict, missing.seen) == ("fail", "kernel 6.1-cloud has none")
    assert missing.mend == "boot a kernel that has ipip (Debian: linux-image-amd64)"
    assert (unseen.verdict, unseen.name) == ("unknown", "module dummy")
    assert "modprobe dummy" in unseen.mend


def test_modules_are_found_in_the_lists_of_depmod(tmp_path: Path) -> None:
    tree, loaded = tmp_path / "6.1", tmp_path / "module"
    assert host.modules(["ipip"], tree, loaded) == {"ipip": "unknown"}
    for folder in (tree, loaded / "ip_vs"):
        folder.mkdir(parents=True)
    (tree / "modules.builtin").write_text("kernel/drivers/net/dummy.ko\n")
    (tree / "modules.dep").write_text("kernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz\nkernel/a/ip-vs.ko:\n")
    assert host.modules(["ip_vs", "dummy", "ipip", "tunnel4"], tree, loaded) == {
        "ip_vs": "loaded",
        "dummy": "built-in",
        "ipip": "loadable",
        "tunnel4": "missing",
    }


def test_a_setting_that_is_not_as_wanted_says_what_follows() -> None:
    sloppy, forward = Sysctl("net.ipv4.vs.sloppy_tcp", "1"), Sysctl("net.ipv4.ip_forward", "1")
    absent, filters = Sysctl("net.ipv4.vs.pmtu_disc", "0"), Sysctl("net.ipv4.conf.all.rp_filter", "0")
    actual = {sloppy.name: "0", forward.name: "1", filters.name: "1"}
    good, bad = settings.wanted([sloppy, forward, absent, filters], actual, APPLY)
    assert good == Finding("sysctls", "ok", "1 as the role wants them")
    assert bad == Finding(
        "sysctl net.ipv4.vs.sloppy_tcp",
        "fail",
        "0, wanted 1: flows that another L4 node has scheduled are dropped here",
        "lbnode apply --role l4; if it comes back, look who sets it in /etc/sysctl.d/",
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [("l4-1", "l4"), ("l7-1", "l7"), ("s1", "backend")],
)
def test_every_setting_of_a_role_has_a_consequence(name: str, role: str) -> None:
    rows = desired(role, Inputs(cluster.small(), name, templates=load())).rows  # type: ignore[arg-type]
    names = {row.name for row in rows if isinstance(row, Sysctl) and not row.name.endswith("rp_filter")}
    assert names <= set(settings.CONSEQUENCES)


@pytest.mark.parametrize(
    ("of_all", "tunnel", "expected"),
    [
        (0, 0, [("rp_filter", "ok")]),
        (0, 2, [("rp_filter", "ok")]),
        (2, 1, [("rp_filter", "ok")]),
        (0, 1, [("rp_filter", "ok"), ("rp_filter lb-ipip", "fail")]),
        (1, 0, [("rp_filter lb-ipip", "fail"), ("rp_filter eth0", "warn")]),
        (1, 2, [("rp_filter", "ok"), ("rp_filter eth0", "warn")]),
    ],
)
def test_the_greater_of_all_and_the_device_filters(of_all: int, tunnel: int, expected: list[tuple[str, str]]) -> None:
    assert short(settings.reverse_path(of_all, {"lb-ipip": tunnel, "eth0": 0}, APPLY)) == expected


def test_a_filter_is_mended_where_it_comes_from() -> None:
    (tunnel,) = settings.reverse_path(0, {"lb-ipip": 1}, APPLY)
    assert tunnel.mend == "lbnode apply --role l4; it sets all and lb-ipip to 0"
    (uplink,) = settings.reverse_path(0, {"eth0": 1}, APPLY)
    assert uplink.mend == "sysctl -w net.ipv4.conf.eth0.rp_filter=0, and the same line in /etc/sysctl.d/"
    (both,) = settings.reverse_path(1, {"eth0": 1}, APPLY)
    assert "net.ipv4.conf.all.rp_filter=0" in both.mend
    assert "net.ipv4.conf.eth0.rp_filter=0" in both.mend


@pytest.mark.parametrize(
    ("accept_ra", "forwarding", "has_default", "verdict"),
    [(1, 1, False, "warn"), (1, 1, True, "ok"), (2, 1, False, "ok"), (1, 0, False, "ok"), (0, 1, False, "ok")],
)
def test_a_node_that_forwards_hears_no_router_advertisements(
    accept_ra: int, forwarding: int, has_default: bool, verdict: str
) -> None:
    (found,) = settings.router_advertisements([Listener("eth0", accept_ra, forwarding)], has_default)
    assert found.verdict == verdict
    assert bool(found.mend) == (verdict == "warn")


VIP_LINK, TUNNEL = Link("lb-vip", "dummy"), Link("lb-ipip", "ipip", "192.0.2.10")
VIPS = tuple(Address(f"198.51.100.{number}", "lb-vip") for number in range(1, 9))
WANTED = (VIP_LINK, TUNNEL, *VIPS)


def test_devices_and_vips_in_place() -> None:
    assert short(devices.check(WANTED, WANTED, (), APPLY)) == [("devices", "ok"), ("vips", "ok")]
    assert devices.check((), (), (), APPLY) == ()


def test_a_missing_tunnel_and_a_narrowed_one() -> None:
    _, missing, _ = devices.check((VIP_LINK, *VIPS), WANTED, (), APPLY)
    assert (missing.name, missing.verdict, missing.mend) == ("tunnel lb-ipip", "fail", APPLY)
    assert missing.seen == "missing: IPv4 packets that the L4 nodes send through the tunnel are dropped"
    narrowed = Link("lb-ipip", "ipip", "192.0.2.10 remote 192.0.2.9")
    _, different, _ = devices.check((VIP_LINK, narrowed, *VIPS), WANTED, (), APPLY)
    assert different.seen.startswith("local 192.0.2.10 remote 192.0.2.9 -> 192.0.2.10: ")


def test_missing_vips_are_named_and_a_missing_device_is_told_once() -> None:
    *_, found = devices.check((VIP_LINK, TUNNEL, *VIPS[6:]), WANTED, (), APPLY)
    assert found.verdict == "fail"
    assert found.seen.startswith("6 of 8 missing: 198.51.100.1 on lb-vip, 198.51.100.2 on lb-vip")
    assert "198.51.100.5 on lb-vip and 1 more: packets to them are not taken" in found.seen
    without = devices.check((TUNNEL,), WANTED, (), APPLY)
    assert short(without) == [("devices", "ok"), ("device lb-vip", "fail")]


def test_what_is_not_wanted_or_not_ours_is_a_warning() -> None:
    stranger = Address("198.51.100.99", "lb-vip")
    lines = ("address 198.51.100.1/32 on lo",)
    found = devices.check((*WANTED, stranger, Link("lb-old", "ipip")), WANTED, lines, APPLY)
    assert [name for name, verdict in short(found) if verdict == "warn"] == [
        "tunnel lb-old",
        "vips besides",
        "left alone",
    ]


@pytest.mark.parametrize(
    ("version", "mtu", "verdict", "words"),
    [
        (4, 9000, "ok", "full packets fit"),
        (4, 1520, "ok", "full packets fit"),
        (4, 1500, "ok", "enough for the MSS of 1440"),
        (4, 1499, "warn", "needs 1480: larger ones travel in fragments"),
        (6, 1540, "ok", "full packets fit"),
        (6, 1539, "ok", "enough for the MSS of 1400"),
        (6, 1400, "warn", "needs 1460: clients are told by ICMPv6"),
        (6, 1320, "warn", "1280 inside the tunnel"),
        (6, 1319, "fail", "IPv6 needs 1280, IPVS sends nothing"),
    ],
)
def test_the_narrowest_way_to_a_real_server_counts(version: int, mtu: int, verdict: str, words: str) -> None:
    (found,) = packets.ways(TUNNELS[version], [Way("wide", "eth1", 9001), Way("narrow", "eth0", mtu)])
    assert (found.name, found.verdict) == (f"mtu ipv{version}", verdict)
    assert found.seen.startswith(f"{mtu} on eth0 to narrow, {mtu - (20 if version == 4 else 40)} inside the tunnel")
    assert words in found.seen
    assert ("MTU of 1500 or more" in found.mend) == (verdict != "ok")


def test_a_narrow_way_names_the_mtu_to_say() -> None:
    for version in (4, 6):
        (found,) = packets.ways(TUNNELS[version], [Way("s1", "eth0", 1400)])
        assert found.mend.endswith("1500 or more; or say `tunnel: {mtu: 1400, clamp_mss: true}` in the cluster file")
        told = packets.Tunnel(version, TUNNELS[version].outer, 1400, clamped=True)
        assert [one.verdict for one in packets.ways(told, [Way("s1", "eth0", 1400)])] == ["ok"]


def test_what_the_tunnel_adds_counts_and_so_does_a_clamp_that_nobody_wants() -> None:
    gue = packets.Tunnel(6, 52, 1500, clamped=True)
    (found,) = packets.ways(gue, [Way("s1", "eth0", 1500)])
    assert found.seen.endswith("1448 inside the tunnel: enough for the MSS of 1388 that clients are told")
    free = packets.Tunnel(6, 52, 1500, clamped=False)
    (found,) = packets.ways(free, [Way("s1", "eth0", 1500)])
    assert (found.verdict, "MTU of 1552 or more" in found.mend) == ("warn", True)


def test_real_servers_without_a_route_are_named() -> None:
    found = packets.ways(TUNNELS[4], [Way("192.0.2.1"), Way("192.0.2.2", "eth0", 1520), Way("192.0.2.3")])
    assert short(found) == [("route ipv4", "fail"), ("mtu ipv4", "ok")]
    assert found[0].seen == "no route to 192.0.2.1, 192.0.2.3"
    assert packets.ways(TUNNELS[6], []) == ()


def test_the_shipped_configuration_tells_an_mss_that_fits() -> None:
    whole = cluster.small()
    config = render.config(load(), whole, "l7-1", Paths(), (2, 6)).text
    vips = ["198.51.100.1", "2001:db8:c633:6401::1"]
    told = packets.binds(config, vips)
    assert told == {"198.51.100.1": 1440, "2001:db8:c633:6401::1": 1400}
    for version, vip in ((4, vips[0]), (6, vips[1])):
        (found,) = packets.haproxy_mss(TUNNELS[version], {vip: told[vip]}, 1500)
        assert found.verdict == "ok"


def test_a_bind_without_mss_is_found_and_mended() -> None:
    config = "frontend www\n  bind 198.51.100.1:80\n  bind 198.51.100.1:443 mss 1440\n  bind 127.0.0.1:8404 mss 9\n"
    assert packets.binds(config, ["198.51.100.1"]) == {"198.51.100.1": 0}
    (found,) = packets.haproxy_mss(TUNNELS[4], {"198.51.100.1": 0}, 1500)
    assert found.verdict == "warn"
    assert found.seen.startswith("1460 at 198.51.100.1 told to clients, 1440 fits into the tunnel at MTU 1500")
    assert found.mend == (
        "say `tunnel: {mtu: 1500, clamp_mss: true}` in the cluster file; in a haproxy.cfg.j2 of your own: "
        "`mss 1440` in the bind lines"
    )
    assert packets.haproxy_mss(TUNNELS[4], {}, 1500) == ()


@pytest.mark.parametrize(
    ("mtu", "advertised", "clamp", "verdict"),
    [
        (1500, 0, 0, "warn"),
        (1500, 1400, 0, "ok"),
        (1540, 0, 0, "ok"),
        (1500, 1440, 0, "warn"),
        (1500, 0, 1400, "ok"),
        (1500, 0, 1420, "warn"),
    ],
)
def test_a_backend_that_answers_directly_tells_by_its_route_and_clamp(
    mtu: int, advertised: int, clamp: int, verdict: str
) -> None:
    (found,) = packets.route_mss(TUNNELS[6], {"2001:db8:5::1": clamp}, mtu, advertised)
    assert found.verdict == verdict
    assert (found.mend == "say `tunnel: {mtu: 1500, clamp_mss: true}` in the cluster file") == (verdict == "warn")


FILTER = (SourceAllow(KEY, ("10.0.0.0/8",)), MssClamp("198.51.100.1", 1436))


def test_rules_that_are_missing_or_different_are_failures() -> None:
    assert short(rules.check("filter", FILTER, FILTER, APPLY)) == [("filter", "ok")]
    found = rules.check("filter", [MssClamp("198.51.100.1", 1460)], FILTER, APPLY)
    assert [(one.name, one.verdict, one.seen, one.mend) for one in found] == [
        (
            "mss-clamp 198.51.100.1",
            "fail",
            "mss 1460 -> 1436: clients are told an MSS that does not fit into the tunnel",
            APPLY,
        ),
        ("source-allow 198.51.100.1:80/tcp", "fail", "missing: everybody reaches the service", APPLY),
    ]


def test_rules_and_ports_that_are_too_much() -> None:
    found = rules.check("filter", [*FILTER, SynLimit(KEY, 1, 1), FilterDamage("not ours: chain x")], FILTER, APPLY)
    assert short(found) == [("filter", "ok"), ("filter-damage", "fail"), ("syn-limit 198.51.100.1:80/tcp", "warn")]
    (lost,) = rules.check("gue", [], [FouPort(4, 6080)], APPLY)
    assert lost.seen == "missing: what the L4 nodes send through GUE is dropped"


def test_nf_tables_is_asked_for_only_where_it_is_needed() -> None:
    nothing = rules.NfTables(kernel=False, program=False)
    assert rules.nf_tables(nothing, ()) == ()
    (found,) = rules.nf_tables(nothing, FILTER)
    assert found.seen == "this kernel has none, and source-allow, mss-clamp need it"
    (found,) = rules.nf_tables(rules.NfTables(kernel=True, program=False), FILTER)
    assert found.mend == "apt install nftables"
    assert short(rules.nf_tables(rules.NfTables(kernel=True, program=True), FILTER)) == [("nf_tables", "ok")]
    assert modules.needed((*FILTER, FouPort(4, 6080), Link("lb-gre", "gre"))) == ("nf_tables", "fou", "ip_gre")


def test_a_jumbo_uplink_tells_no_more_than_clients_can_send() -> None:
    (found,) = packets.route_mss(TUNNELS[4], {"198.51.100.1": 0}, 9000, 0)
    assert found.verdict == "ok"


@pytest.mark.parametrize(
    ("program", "version", "verdict"),
    [
        ("haproxy", None, "fail"),
        ("haproxy", (2, 2), "fail"),
        ("haproxy", (2, 4), "warn"),
        ("haproxy", (2, 6), "ok"),
        ("haproxy", (3, 2), "ok"),
        ("exabgp", (3, 4), "fail"),
        ("exabgp", (4, 2), "ok"),
        ("exabgp", (5, 0), "ok"),
    ],
)
def test_versions(program: str, version: tuple[int, int] | None, verdict: str) -> None:
    found = programs.installed(program, version)
    assert found.verdict == verdict
    assert bool(found.mend) == (verdict != "ok")


def test_the_installed_exabgp_says_its_version() -> None:
    version = host.exabgp_version()
    assert version is not None
    assert version >= (5, 0)


@pytest.mark.parametrize(
    ("word", "said"), [("--version", "ExaBGP : 4.2.21"), ("version", "ExaBGP : 5.0.15\nPython : 3.11")]
)
def test_an_exabgp_elsewhere_is_asked_in_its_own_words(tmp_path: Path, word: str, said: str) -> None:
    script = tmp_path / "exabgp"
    script.write_text(f'#!/bin/sh\n[ "$1" = {word} ] || {{ echo usage >&2; exit 2; }}\necho "{said}"\n')
    script.chmod(0o755)
    assert host._said(str(script)) == said.split()[2]


def test_what_runs_is_compared_with_what_should() -> None:
    wanted = Running("haproxy", "aa")
    assert programs.runs(wanted, wanted, APPLY).verdict == "ok"
    stopped = programs.runs(wanted, None, APPLY)
    assert (stopped.verdict, "systemctl start lbnode-haproxy" in stopped.mend) == ("fail", True)
    older = programs.runs(wanted, Running("haproxy", "bb"), APPLY)
    assert (older.verdict, older.mend) == ("warn", APPLY)
    foreign = programs.runs(wanted, Running("haproxy", ""), APPLY)
    assert foreign.seen == "with a configuration that is not lbnode's, the cluster file says aa"


def test_permissions() -> None:
    assert rights.net_admin(1 << 12).verdict == "ok"
    assert rights.net_admin(0x1FF & ~(1 << 12)).verdict == "fail"
    assert rights.net_admin(1 << 11).verdict == "fail"
    assert rights.writable("/etc/lb", "").verdict == "ok"
    refused = rights.writable("/etc/lb", "/etc cannot be written by uid 7")
    assert (refused.verdict, refused.seen) == ("fail", "/etc cannot be written by uid 7")


def test_a_directory_that_can_be_made_can_be_written(tmp_path: Path) -> None:
    assert host.write_problem(tmp_path / "a" / "b") == ""
    (tmp_path / "file").write_text("")
    assert host.write_problem(tmp_path / "file" / "b") == f"{tmp_path / 'file'} is not a directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("limits", "verdict", "setting"),
    [
        (Inotify(128, 8192), "ok", ""),
        (Inotify(8, 8192), "warn", "fs.inotify.max_user_instances=1024"),
        (Inotify(128, 100), "warn", "fs.inotify.max_user_watches=65536"),
        (Inotify(128, 8192, "Too many open files"), "fail", "fs.inotify.max_user_instances=1024"),
    ],
)
def test_inotify(limits: Inotify, verdict: str, setting: str) -> None:
    found = rights.inotify(limits)
    assert found.verdict == verdict
    assert setting in found.mend


def test_no_module_is_needed_twice() -> None:
    assert modules.needed([VirtualService(key, "rr", ()) for key in ("a", "b")]) == ("ip_vs", "ip_vs_rr")  # type: ignore[arg-type]


def test_a_host_that_is_no_such_node_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On whatever host the tests run: none has these addresses."""
    (tmp_path / "cluster.yaml").write_text(cluster.TEXT)
    before = sorted(tmp_path.rglob("*"))
    options = ["--etc-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    assert run(["doctor", "--role", "l4", "--node", "l4-1", "--json", *options]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["node"], found["role"]) == ("l4-1", "l4")
    by_name = {finding["name"]: finding for finding in found["findings"]}
    assert by_name["address ipv4"]["verdict"] == "fail"
    assert by_name["address ipv4"]["seen"] == "192.0.2.137 is on no device of this node"
    assert by_name["exabgp runs"]["verdict"] == "fail"
    assert all(finding["mend"] for finding in found["findings"] if finding["verdict"] in ("warn", "fail"))
    assert run(["doctor", "--node", "l4-1", *options]) == 1
    text = capsys.readouterr().out.splitlines()
    assert "FAIL    address ipv4: 192.0.2.137 is on no device of this node" in text
    assert text[-1].endswith(("failure", "failures"))
    assert sorted(tmp_path.rglob("*")) == before, "it changes nothing"
