"""What runs on the L4 and L7 nodes of a lab, so that the same experiment can be made with lbnode and with its peers.

A stack takes the network as `lbnode.lab.programs.start_network` leaves it: routers with BGP, backends with web servers,
and L4 and L7 nodes with nothing on them. It does there what its operators would do, in their way and with its own
timers; what then becomes of the flows is for the experiment to see.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lbnode.lab.scenarios.stage import Stage


class Stack(Protocol):
    """One way to build tiers 2 and 3. Methods return when the order has been given, not when it has taken effect."""

    name: str

    def start(self, stage: "Stage", l7: Sequence[str]) -> None:
        """Starts everything, with these L7 nodes in use; returns when every router has every VIP over every L4 node
        and every L4 node uses every real server. The other L7 nodes of the lab stand by: they run and nobody uses
        them."""
        ...

    def set_l7(self, names: Sequence[str]) -> None:
        """From now on every L4 node is configured with exactly these L7 nodes: an L7 node is added or removed."""
        ...

    def l4_out(self, name: str) -> None:
        """Takes an L4 node out of service, as for maintenance."""
        ...

    def l4_back(self, name: str) -> None: ...

    def l7_drain(self, name: str) -> None:
        """Takes an L7 node out of service so that its flows may end by themselves, as far as the stack can."""
        ...

    def l7_ready(self, name: str) -> None: ...

    def l4_programs(self) -> tuple[str, ...]:
        """The supervisor's names of the programs on an L4 node."""
        ...

    def l7_programs(self) -> tuple[str, ...]:
        """Those on an L7 node; the first one serves."""
        ...

    def restart_control(self, name: str) -> None:
        """Kills what programs IPVS on an L4 node (SIGKILL) and has it started anew at once."""
        ...
