"""What the template of haproxy.cfg sees of the cluster: texts ready to be written, and nothing to decide. PURE."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from zlib import crc32

from lbnode.config.model import Check, Cluster, IPAddress, Node, Pool, Service
from lbnode.errors import LbnodeError
from lbnode.haproxy import tables
from lbnode.haproxy.quoting import argument, duration, escaped, host
from lbnode.paths import Paths
from lbnode.roles import mss

CONTENT_TYPES = {"html": "text/html", "json": "application/json", "txt": "text/plain"}

_ID_BITS = 20
_MAX_WEIGHT = 256


@dataclass(frozen=True)
class Bind:
    """Where HAProxy listens; `mss` is what clients are told at most, None for the kernel's own choice."""

    endpoint: str
    mss: int | None
    tls: str = ""


@dataclass(frozen=True)
class Server:
    """`more`: further words of its line."""

    name: str
    endpoint: str
    id: int
    weight: int
    more: str = ""


@dataclass(frozen=True)
class PoolView:
    """One backend: a pool as one service uses it. `server_words` hold for all of its servers; `template` stands for
    servers that are found by DNS, without the port; `cookie` is the name of
    the sticky cookie, if there is one; `expect` of a check is HAProxy's notation of statuses."""

    name: str
    balance: str
    check: Check
    path: str
    expect: str
    check_timeout: str
    server_words: str
    agent_check: bool
    cookie: str
    template: str
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Page:
    """An answer out of a file."""

    status: str
    type: str
    file: str


@dataclass(frozen=True)
class ServiceView:
    """One service. `service` has what needs no quoting; paths are arguments or words; `allow` and `deny` are the files
    of networks, empty for none; `redirect` is the port to which requests without TLS go (`:8443`, empty for 443)."""

    name: str
    service: Service
    binds: tuple[Bind, ...]
    pools: tuple[PoolView, ...]
    routes: str
    allow: str
    deny: str
    redirect: str | None
    timeouts: Mapping[str, str]
    pages: tuple[Page, ...]
    maintenance_page: str

    @property
    def mode(self) -> str:
        return self.service.mode

    @property
    def clients(self) -> str:
        """The frontend's name; since 3.3 it must differ from every backend's."""
        return f"{self.name}:clients"

    @property
    def rates(self) -> str:
        """The name of the table in which its clients' requests are counted."""
        return f"{self.name}:rates"


def services(cluster: Cluster, paths: Paths) -> list[ServiceView]:
    """Those that go through L7, in the order of the file."""
    ids = server_ids(cluster.with_role("backend"))
    told = mss.by_vip(cluster, "l7")
    served = ((name, service) for name, service in cluster.services.items() if service.through == "l7")
    return [_service(cluster, name, service, ids, told, paths) for name, service in served]


def binds(told: Mapping[IPAddress, int | None], vips: Iterable[IPAddress], ports: Sequence[int]) -> tuple[Bind, ...]:
    """Every VIP with every port, without TLS. `told`: the MSS of each VIP."""
    return tuple(Bind(f"{host(vip)}:{port}", told.get(vip)) for vip in vips for port in ports)


def server_ids(names: Iterable[str]) -> dict[str, int]:
    """A stable number for each name, 1 to 2^20 - 1; earlier names keep theirs when later ones are added.

    Consistent hashing places a server by its id (src/lb_chash.c: full_hash(puid * SRV_EWGHT_RANGE + n), 32 bits of
    which SRV_EWGHT_RANGE takes 12), so ids must be the same on every L7 node and must not move when others come or go.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    span = (1 << _ID_BITS) - 1
    for name in names:
        number = crc32(name.encode()) % span
        while number in taken:
            number = (number + 1) % span
        taken.add(number)
        ids[name] = number + 1
    return ids


def weights(nodes: Mapping[str, Node]) -> dict[str, int]:
    """Node weights in HAProxy's range, 1 to 256: as they are, or all scaled down when one is above it."""
    largest = max((node.weight for node in nodes.values()), default=1)
    if largest <= _MAX_WEIGHT:
        return {name: node.weight for name, node in nodes.items()}
    return {name: max(1, round(node.weight * _MAX_WEIGHT / largest)) for name, node in nodes.items()}


def _service(
    cluster: Cluster,
    name: str,
    service: Service,
    ids: Mapping[str, int],
    told: Mapping[IPAddress, int | None],
    paths: Paths,
) -> ServiceView:
    def listed(what: str, there: object) -> str:
        return argument(str(tables.path(paths, name, what))) if there else ""

    secured = service.tls.ports if service.tls.certificates else ()
    plain = [port for port in service.ports if port not in secured]
    redirected = secured and plain and service.tls.redirect and service.mode == "http"
    return ServiceView(
        name=name,
        service=service,
        binds=(
            *binds(told, service.vips, plain),
            *_tls_binds(told, service, [port for port in service.ports if port in secured], name, paths),
        ),
        pools=tuple(_pool(cluster, name, service, pool, ids) for pool in cluster.pools_of(service)),
        routes=listed("routes.map", service.routes),
        allow=listed("allow.acl", service.clients.allow),
        deny=listed("deny.acl", service.clients.deny),
        redirect=("" if secured[0] == 443 else f":{secured[0]}") if redirected else None,
        timeouts={key.removesuffix("_s"): duration(value) for key, value in service.timeouts},
        pages=tuple(_page(page) for page in service.pages),
        maintenance_page=escaped(service.maintenance_page) if service.maintenance_page else "",
    )


def _tls_binds(
    told: Mapping[IPAddress, int | None], service: Service, ports: Sequence[int], name: str, paths: Paths
) -> tuple[Bind, ...]:
    tls = service.tls
    words = f"ssl crt-list {escaped(str(tables.path(paths, name, 'certificates.list')))} ssl-min-ver {tls.min_version}"
    if service.mode == "http":
        words += f" alpn {'h2,' if tls.http2 else ''}http/1.1"
    if tls.client_ca:
        words += f" ca-file {escaped(tls.client_ca)} verify {tls.client_certificate}"
    return tuple(Bind(bind.endpoint, bind.mss, words) for bind in binds(told, service.vips, ports))


def _page(path: str) -> Page:
    name = PurePath(path)
    return Page(name.stem, CONTENT_TYPES[name.suffix.removeprefix(".")], escaped(path))


def _pool(cluster: Cluster, name: str, service: Service, pool_name: str, ids: Mapping[str, int]) -> PoolView:
    pool, members = cluster.pools[pool_name], cluster.members(pool_name)
    weight = weights(members)
    own = pool_name == service.pool
    return PoolView(
        name=tables.backend(name, service.pool, pool_name),
        balance=f"hdr({service.balance_header})" if service.balance == "header" else service.balance,
        check=pool.check,
        path=escaped(pool.check.path),
        expect=",".join(
            status.replace("xx", "00") + f"-{status[0]}99" * ("x" in status) for status in pool.check.status
        ),
        check_timeout=duration(pool.check.timeout_s),
        server_words=" ".join(_server_words(pool)),
        agent_check=pool.agent_check,
        cookie=(service.sticky_cookie + ("" if own else f"-{pool_name}")) if service.sticky_cookie else "",
        template=_template(pool),
        servers=tuple(
            Server(
                server,
                f"{host(_preferred(server, node))}:{pool.port}",
                ids[server],
                weight[server],
                _more(pool, server, ids[server] if service.sticky_cookie else 0),
            )
            for server, node in members.items()
        ),
    )


def _template(pool: Pool) -> str:
    """What follows `server-template`; empty for a pool of nodes."""
    dns = pool.dns
    if dns.name is None:
        return ""
    where = dns.name if dns.type == "SRV" else f"{dns.name}:{pool.port}"
    prefer = {"A": " resolve-prefer ipv4", "AAAA": " resolve-prefer ipv6", "SRV": ""}[dns.type]
    return f"dns- 1-{dns.slots} {where} resolvers dns init-addr none{prefer} weight 100"


def _more(pool: Pool, server: str, cookie: int) -> str:
    words = ["backup"] if server in pool.backup else []
    return "".join(f" {word}" for word in [*words, *([f"cookie {cookie:x}"] if cookie else [])])


def _server_words(pool: Pool) -> list[str]:
    """What holds for all servers of a pool besides their agent checks."""
    check, tls = pool.check, pool.tls
    words = [f"check inter {duration(check.interval_s)} rise {check.rise} fall {check.fall}"]
    if check.port:
        words.append(f"port {check.port}")
    if pool.slow_start_s:
        words.append(f"slowstart {duration(pool.slow_start_s)}")
    if pool.max_connections:
        words.append(f"maxconn {pool.max_connections}")
    if pool.proxy_protocol != "none":
        words.append("send-proxy" if pool.proxy_protocol == "v1" else "send-proxy-v2")
        words += ["check-send-proxy"] if check.port else []
    if tls.enabled:
        words.append("ssl")
        words.append(f"verify required ca-file {escaped(tls.ca or '@system-ca')}" if tls.verify else "verify none")
        words += [f"sni str({tls.host}) check-sni {tls.host}"] if tls.host else []
        words += ["alpn h2 check-alpn h2"] if pool.protocol == "h2" else []
        words += ["check-ssl"] if check.port else []
    elif pool.protocol == "h2":
        words.append("proto h2")
    return words


def _preferred(name: str, node: Node) -> IPAddress:
    address = node.ipv6 or node.ipv4
    if address is None:
        raise LbnodeError(f"cannot render haproxy.cfg: node {name} has no address")
    return address
