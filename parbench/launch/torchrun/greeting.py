"""What nodes must have in common before they measure together."""

import secrets
import time

from pydantic import ValidationError

from parbench.launch.base import Campaign
from parbench.launch.node import describe
from parbench.launch.torchrun.link import LinkError
from parbench.launch.torchrun.messages import Greeting, Introduction
from parbench.records.node import NodeRecord
from parbench.system.digests import digest_of_json
from parbench.system.environment import capture, differences

SESSION = secrets.token_hex(8)


def greet(campaign: Campaign, node: int, address: str) -> Greeting:
    """This node's greeting; the others reach it at `address`."""
    environment = capture()
    cores_per_device = campaign.scenario["devices"]["cores_per_device"]
    return Greeting(
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
        record=describe(node, address),
        environment=environment,
        time=time.time(),
    )


def version_mismatch(ours: Greeting, raw: bytes) -> str | None:
    """Why a greeting is not even read: another parbench may say other things in it. `LinkError` where it is none."""
    try:
        theirs = Introduction.model_validate_json(raw)
    except ValidationError:
        raise LinkError("sent no greeting") from None
    return None if theirs.parbench == ours.parbench else _differ("parbench", theirs.node, theirs.parbench, ours)


def parse_greeting(raw: bytes) -> Greeting:
    """A greeting of this same parbench. `LinkError` where it is none."""
    try:
        return Greeting.model_validate_json(raw)
    except ValidationError:
        raise LinkError("sent no greeting") from None


def disagreement(ours: Greeting, theirs: Greeting) -> str | None:
    """Why a node cannot take part beside node 0; None where it can."""
    node = theirs.node
    if theirs.nodes != ours.nodes:
        return f"node {node} was started with --nodes {theirs.nodes}, node 0 with --nodes {ours.nodes}"
    if not 0 < node < ours.nodes:
        return f"--node-rank {node}: with --nodes {ours.nodes} the other nodes are 1 to {ours.nodes - 1}"
    if theirs.torch != ours.torch:
        return _differ("torch", node, str(theirs.torch), ours, str(ours.torch))
    if theirs.code != ours.code:
        return f"node {node} ({theirs.record.host}) measures by other code than node 0; install the same everywhere"
    if theirs.scenario != ours.scenario:
        return f"node {node} ({theirs.record.host}) was given another scenario, or other --set values, than node 0"
    if theirs.devices != ours.devices:
        counts = [f"{devices['cpu']} cpu and {devices['cuda']} cuda" for devices in (theirs.devices, ours.devices)]
        return (
            f"node {node} ({theirs.record.host}) has {counts[0]} devices, node 0 has {counts[1]}; nodes must be equal"
        )
    changed = [name for name, sha256 in ours.corpora.items() if theirs.corpora.get(name) != sha256]
    if changed:
        return (
            f"the data of {', '.join(changed)} on node {node} ({theirs.record.host}) is not that of node 0: "
            "their hashes differ; give both the same files"
        )
    return None


def noted(ours: Greeting, theirs: Greeting) -> NodeRecord:
    """A node's record with what is different there, but no reason to refuse it."""
    differ = tuple(name for name, _, _ in differences(ours.environment, theirs.environment))
    return theirs.record.model_copy(update={"clock_offset_s": round(theirs.time - time.time(), 3), "differs": differ})


def _differ(what: str, node: int, theirs: str, ours: Greeting, mine: str | None = None) -> str:
    first = f"node 0 ({ours.record.host}) has {what} {mine or ours.parbench}"
    return f"node {node} has {what} {theirs}, {first}; install the same"
