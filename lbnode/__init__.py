"""lbnode turns plain Linux machines into a three-tier load balancer, and keeps them so.

Routers spread flows by ECMP over BGP; L4 nodes spread them again with IPVS, Maglev hashing and IPIP tunnels; L7 nodes
run HAProxy and answer the client directly. lbnode decides what each machine should look like (`lbnode.roles`), shows
the difference to what it does look like (`lbnode.plan`), and makes it so (`lbnode.reconcile`).
"""

__version__ = "0.1.0"
