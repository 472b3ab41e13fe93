"""A node of a run: its host, and the network interface to the other nodes. Needs no torch."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

from parbench.records.node import NodeRecord
from parbench.system.environment import capture
from parbench.system.kernel import machine_id, read

INTERFACES = Path("/sys/class/net")


def inspect_node(node: int, address: str) -> NodeRecord:
    """The record of this node, which the others reach at the IP address `address`."""
    interface = interface_of(address)
    return NodeRecord(
        node=node,
        host=socket.gethostname(),
        address=address,
        interface=interface,
        interface_mbit=_rated_mbit(interface) if interface else None,
        shaped_mbit=_shaped_mbit(interface) if interface else None,
        gpu_links=capture().speed.gpu_links,
        machine=machine_id(),
    )


def interface_of(address: str) -> str | None:
    """The name of the network interface with this IP address; None if none has it."""
    import psutil

    interfaces = psutil.net_if_addrs().items()
    return next((name for name, addresses in interfaces if any(each.address == address for each in addresses)), None)


def network_variables(address: str) -> dict[str, str]:
    """The variables that make gloo and NCCL use the interface with this IP address."""
    interface = interface_of(address)
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}


def _rated_mbit(interface: str) -> int | None:
    """The driver's speed in Mbit/s; None for an interface without one, such as loopback."""
    speed = read(INTERFACES / interface / "speed")
    return int(speed) if speed and speed.isdecimal() and int(speed) else None


def _shaped_mbit(interface: str) -> float | None:
    """The limit in Mbit/s of a token bucket filter; None if there is none, or no `tc` to show it."""
    tc = shutil.which("tc")
    if tc is None:
        return None
    try:
        ended = subprocess.run(  # noqa: S603 - an interface's name, from the kernel
            [tc, "-json", "qdisc", "show", "dev", interface], capture_output=True, text=True, timeout=10, check=True
        )
        rates = [each["options"]["rate"] for each in json.loads(ended.stdout) if each.get("kind") == "tbf"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None
    return min(rates) * 8 / 1e6 if rates else None
