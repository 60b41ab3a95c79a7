"""What a real server finds for the second chance of flows: what it remembers, its devices, whether its kernel can."""

from lbnode.chance import memory
from lbnode.chance.generations import Past
from lbnode.config.model import Cluster
from lbnode.paths import Paths
from lbnode.roles.inputs import Chance
from lbnode.roles.second_chance import covered


def of(cluster: Cluster, name: str, paths: Paths) -> tuple[Past, Chance]:
    """Nothing where no service of the node's own can have one. Raises LbnodeError, OSError."""
    some = [service for service in cluster.balanced.values() if covered(service)]
    if not cluster.second_chance.enabled or not any(name in cluster.real_servers(service) for service in some):
        return Past(), Chance()
    from lbnode.chance import kernel, program
    from lbnode.net import filters

    past = memory.read(paths.generations)
    if refused := kernel.refused(paths.bpf):
        return past, Chance(refused=refused)
    node = cluster.nodes[name]
    own = frozenset(str(address) for address in (node.ipv4, node.ipv6) if address is not None)
    return past, Chance(program.built()[1], filters.carriers(own))
