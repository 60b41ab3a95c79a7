"""Telling systemd how the agent is (sd_notify(3)): one datagram to $NOTIFY_SOCKET, nothing when there is none."""

import os
import socket


def notify(state: str) -> None:
    """`state` such as READY=1. Never raises: an agent does not end because its supervisor does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        try:
            client.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError:
            return
