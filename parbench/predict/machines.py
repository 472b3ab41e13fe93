"""The machine of a published row: a shipped cluster, with what the row says of its memory, power, nodes and network."""

import re

from parbench.predict.clusters import Cluster, shipped_cluster
from parbench.predict.rows import Row

DEVICES = (
    ("gb300", "gb300-nvl72"),
    ("gb200", "gb200-nvl72"),
    ("b200", "dgx-b200"),
    ("h200", "dgx-h200"),
    ("h100|h800", "dgx-h100"),
    ("(a100|a800).*40 ?gb", "dgx-a100-40"),
    ("a100|a800", "dgx-a100-80"),
    ("v100", "dgx-v100"),
)
"""Patterns of what tables call a device, and the cluster that it is one of."""

LOW_POWER_W = 500.0
"""What "lower TDP" means of H100s with HBM2e: those of Meta's Grand Teton, which other tables give in watts."""

GBIT = 1e9 / 8


class UnknownDevice(Exception):  # noqa: N818 - a reason to leave a row out
    """No cluster that comes with parbench has a row's device."""


def machine_of(row: Row) -> Cluster:
    """The machine of a row, with as many devices as it used. Raises `UnknownDevice`."""
    text = row.text("gpu").lower()
    memory = row.number("gpu_mem_gb")
    if memory and not re.search(r"\d+ ?gb", text):
        text = f"{text} {memory:.0f}gb"
    name = next((name for pattern, name in DEVICES if re.search(pattern, text)), None)
    if name is None:
        raise UnknownDevice(f"no cluster that comes with parbench has its device {row.text('gpu') or '(not stated)'}")
    cluster = shipped_cluster(name)
    device = cluster.device.model_copy(update=_said_of_device(text, cluster, memory))
    per_node = _devices_per_node(row, text, cluster)
    network = cluster.links.network.model_copy(update=_said_of_network(row, per_node))
    links = cluster.links.model_copy(update={"network": network})
    return cluster.model_copy(update={"device": device, "links": links, "devices_per_node": per_node})


def _said_of_device(text: str, cluster: Cluster, memory: float | None) -> dict[str, float]:
    facts: dict[str, float] = {}
    # Tables round: what differs by a tenth is the same memory in other units.
    if memory and abs(memory / cluster.device.memory_gib - 1) > 0.1:
        facts["memory_gib"] = memory
    if bandwidth := re.search(r"([0-9.]+) ?tb/s", text):
        facts["memory_bandwidth"] = float(bandwidth[1]) * 1e12
    if power := re.search(r"([0-9]+) ?w power", text):
        facts["power_w"] = float(power[1])
    elif "lower tdp" in text:
        facts["power_w"] = LOW_POWER_W
    if "hbm2e" in text and cluster.device.generation == "hopper":
        facts.setdefault("memory_bandwidth", 2.4e12)
    return facts


def _devices_per_node(row: Row, text: str, cluster: Cluster) -> int:
    count, nodes = int(row.number("n_gpus") or 1), row.number("nodes")
    if each := re.search(r"([0-9]+)/node", text):
        return int(each[1])
    if nodes and nodes > 1 and count % nodes == 0:
        return int(count // nodes)
    return cluster.devices_per_node


def _said_of_network(row: Row, per_node: int) -> dict[str, float]:
    """A device's share of the links between nodes, from text such as `4x100Gb RoCE per node`."""
    text = row.text("interconnect").lower()
    rate = re.search(r"(?:([0-9]+) ?[x×] ?)?([0-9]+) ?gb(?:ps|/s|it)?", text)
    if rate:
        total = float(rate[1] or 1) * float(rate[2]) * GBIT
        return {"bandwidth": total if "per gpu" in text else total / per_node}
    gbit = row.number("node_gbit")
    return {"bandwidth": gbit * GBIT / per_node} if gbit else {}
