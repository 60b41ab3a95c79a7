"""The places of real servers in the tables of a service: the same in each of its tables of a family. PURE.

A service with many VIPs and ports has many tables; what a real server gets is worked out once, not once per table.
"""

from typing import NamedTuple

from lbnode.resources import Destination
from lbnode.roles.serving import Servers, Serving


class Place(NamedTuple):
    """One real server's: weights as in Destination, its place in the canonical order, and why."""

    address: str
    weight: int
    table_weight: int
    serial: int
    reason: str

    def row(self, like: Destination) -> Destination:
        """Its row in one table: with the service and the settings of `like`."""
        # Written out: dataclasses.replace takes three times as long.
        return Destination(
            like.service,
            self.address,
            self.weight,
            self.table_weight,
            self.serial,
            like.forwarding,
            like.tunnel,
            like.port,
            like.tunnel_port,
            like.tunnel_checksum,
            like.upper,
            like.lower,
        )


def places(servers: Servers, now: Serving) -> list[Place]:
    """In canonical order."""
    why = f"; {now.panic}" if now.panic else ""
    return [
        Place(address, now.weights[server], now.places[server], serial, known.reason + why)
        for serial, (server, (known, address, _)) in enumerate(servers.items(), start=1)
    ]
