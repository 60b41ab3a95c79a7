"""The node's network settings as rows: sysctls, devices of ours, the VIPs on them."""
