"""Announcing VIPs over BGP: ExaBGP's configuration, the relay it runs, and the driver that leaves it its orders."""
