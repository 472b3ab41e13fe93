"""Checks what nodes must have in common before they measure together."""

import secrets
import time

from pydantic import ValidationError

from parbench.launch.base import Campaign
from parbench.launch.node import inspect_node
from parbench.launch.torchrun.link import LinkError
from parbench.launch.torchrun.messages import GreetingHeader, NodeGreeting
from parbench.records.node import NodeRecord
from parbench.system.digests import digest_of_json
from parbench.system.environment import capture, differences

SESSION = secrets.token_hex(8)


def greet(campaign: Campaign, node: int, address: str) -> NodeGreeting:
    """The greeting of this node, which the others reach at the IP address `address`."""
    environment = capture()
    cores_per_device = campaign.scenario["devices"]["cores_per_device"]
    return NodeGreeting(
        node=node,
        nodes=campaign.machine.nodes,
        session=SESSION,
        parbench=environment.context.parbench,
        torch=environment.speed.torch,
        code=campaign.code,
        scenario=digest_of_json(campaign.scenario),
        corpora={name: corpus.sha256 for name, corpus in sorted(campaign.corpora.items())},
        devices={
            "cpu": campaign.machine.per_node("cpu", cores_per_device),
            "cuda": campaign.machine.per_node("cuda"),
        },
        record=inspect_node(node, address),
        environment=environment,
        time=time.time(),
    )


def find_version_mismatch(ours: NodeGreeting, raw: bytes) -> str | None:
    """The mismatch of parbench versions, or None. Only after this check can the whole greeting be parsed.

    Raises `LinkError` if the bytes are not a greeting.
    """
    try:
        theirs = GreetingHeader.model_validate_json(raw)
    except ValidationError:
        raise LinkError("sent no greeting") from None
    return None if theirs.parbench == ours.parbench else _mismatch("parbench", theirs.node, theirs.parbench, ours)


def parse_greeting(raw: bytes) -> NodeGreeting:
    """A greeting of the same version of parbench. Raises `LinkError` if the bytes are not one."""
    try:
        return NodeGreeting.model_validate_json(raw)
    except ValidationError:
        raise LinkError("sent no greeting") from None


def find_mismatch(ours: NodeGreeting, theirs: NodeGreeting) -> str | None:
    """Why a node cannot take part together with node 0; None if it can."""
    node = theirs.node
    if theirs.nodes != ours.nodes:
        return f"node {node} was started with --nodes {theirs.nodes}, node 0 with --nodes {ours.nodes}"
    if not 0 < node < ours.nodes:
        return f"--node-rank {node}: with --nodes {ours.nodes} the other nodes are 1 to {ours.nodes - 1}"
    if theirs.torch != ours.torch:
        return _mismatch("torch", node, str(theirs.torch), ours, str(ours.torch))
    if theirs.code != ours.code:
        return f"node {node} ({theirs.record.host}) has other code than node 0; install the same parbench and plug-ins"
    if theirs.scenario != ours.scenario:
        return f"node {node} ({theirs.record.host}) has another scenario, or other --set values, than node 0"
    if theirs.devices != ours.devices:
        counts = [f"{devices['cpu']} cpu and {devices['cuda']} cuda" for devices in (theirs.devices, ours.devices)]
        return f"node {node} ({theirs.record.host}) has {counts[0]} devices, node 0 has {counts[1]}; use equal nodes"
    different = [name for name, sha256 in ours.corpora.items() if theirs.corpora.get(name) != sha256]
    if different:
        return (
            f"the data of {', '.join(different)} on node {node} ({theirs.record.host}) differs from that on node 0: "
            "give both the same files"
        )
    return None


def add_differences(ours: NodeGreeting, theirs: NodeGreeting) -> NodeRecord:
    """A node's record with the differences from node 0 that are no reason to refuse it."""
    names = tuple(name for name, _, _ in differences(ours.environment, theirs.environment))
    return theirs.record.model_copy(update={"clock_offset_s": round(theirs.time - time.time(), 3), "differs": names})


def _mismatch(what: str, node: int, theirs: str, ours: NodeGreeting, mine: str | None = None) -> str:
    first = f"node 0 ({ours.record.host}) has {what} {mine or ours.parbench}"
    return f"node {node} has {what} {theirs}, {first}; install the same"
