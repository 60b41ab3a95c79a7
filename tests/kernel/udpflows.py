"""Flows whose way the kernel itself tells: datagrams from many source ports, and the connection table of IPVS."""

import socket
import subprocess
from pathlib import Path

from lbnode.resources import ServiceKey

CLIENT = "203.0.113.1"
SOURCE_PORTS = range(20000, 20300)


def lay_routes() -> None:
    """Where clients' packets come from and where tunnelled ones go: nowhere, but with a route."""
    for command in (
        ["address", "add", f"{CLIENT}/32", "dev", "lo"],
        ["link", "add", "wire", "type", "dummy"],
        ["link", "set", "wire", "up"],
        ["address", "add", "192.0.2.254/24", "dev", "wire"],
    ):
        subprocess.run(["ip", *command], check=True)


def flows(key: ServiceKey, ports: range = SOURCE_PORTS) -> dict[int, str]:
    """Where the kernel sends each UDP flow to the service: source port -> destination."""
    subprocess.run(["ip", "address", "replace", f"{key.vip}/32", "dev", "lo"], check=True)
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((CLIENT, port))
            client.sendto(b"?", (key.vip, key.port))
    return entries(key)


def entries(key: ServiceKey) -> dict[int, str]:
    """The flows to the service that the kernel knows: source port -> destination."""
    vip = socket.inet_aton(key.vip).hex().upper()
    connections = [line.split() for line in Path("/proc/net/ip_vs_conn").read_text().splitlines()[1:]]
    return {int(words[2], 16): socket.inet_ntoa(bytes.fromhex(words[5])) for words in connections if words[3] == vip}
