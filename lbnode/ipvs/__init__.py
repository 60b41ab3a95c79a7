"""IPVS: an own generic-netlink codec, and the driver that reads and writes its rows with it."""
