"""A cluster as a YAML file: what its devices and links reach. Shipped ones, people's own, and measured ones."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue

from parbench.base_types import DeviceKind, Spec
from parbench.errors import Mistake, ScenarioError
from parbench.records.machine import MachineRecord
from parbench.scenario.document import Document, parse_document, read_document
from parbench.scenario.machine import read_machine
from parbench.scenario.sentences import explain, suggest, unknown_key
from parbench.text import GIB

SHIPPED = "parbench.predict.shipped"
KEYS = ("device", "links")
MEASURED_KEY = "environment_digest"
"""What the file that `parbench doctor --save` writes has, and no other cluster."""

Format = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "fp4"]
Generation = Literal["volta", "ampere", "hopper", "blackwell", "other"]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class Device(Spec):
    """One device. `matmul_flops` are the operations per second that matrix products reach, by the format they compute
    in; `peak_flops` those of the data sheet, for MFU. `memory_bandwidth` is in bytes per second. `multiprocessors`
    compute the tiles of a product at once; 1 where they do not count, as on CPU. `generation` decides how far a long
    training stays below a short product. `power_w` is the limit that is enforced, `full_power_w` the one that
    `matmul_flops` hold for.
    """

    name: Text
    kind: DeviceKind = "cuda"
    generation: Generation = "other"
    memory_gib: PositiveFloat
    memory_bandwidth: PositiveFloat
    matmul_flops: Annotated[dict[Format, PositiveFloat], Field(min_length=1)]
    peak_flops: dict[Format, PositiveFloat] = Field(default_factory=dict)
    multiprocessors: PositiveInt = 1
    power_w: PositiveFloat | None = None
    full_power_w: PositiveFloat | None = None

    @property
    def memory_bytes(self) -> float:
        """What it holds."""
        return self.memory_gib * GIB

    @property
    def power_share(self) -> float:
        """The enforced power limit as a share of that which the speeds hold for; 1 where it is not known."""
        return self.power_w / self.full_power_w if self.power_w and self.full_power_w else 1.0


class Link(Spec):
    """What a device reaches when all exchange at once: bus bandwidth in bytes per second, as nccl-tests defines it, and
    the seconds that an operation takes however little it carries.
    """

    bandwidth: PositiveFloat
    latency_s: Annotated[float, Field(ge=0)] = 0.0


class Links(Spec):
    """The links between the devices of a node, and a device's share of those between nodes."""

    node: Link
    network: Link


class Cluster(Spec):
    """`nodes` equal nodes of `devices_per_node` devices: those on which the fast links of `links.node` are.

    `sources` names for each figure where it is from, and when that was.
    """

    name: Text
    description: str = ""
    nodes: PositiveInt = 1
    devices_per_node: PositiveInt
    device: Device
    links: Links
    sources: dict[str, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _speeds_lie_below_peaks(self) -> Self:
        for number_format, reached in self.device.matmul_flops.items():
            peak = self.device.peak_flops.get(number_format)
            if peak is not None and reached > peak:
                raise ValueError(
                    f"device.matmul_flops.{number_format} {reached:g} is more than device.peak_flops.{number_format} "
                    f"{peak:g}: what is reached cannot lie above what is possible"
                )
        return self

    @property
    def devices(self) -> int:
        """How many devices it has."""
        return self.nodes * self.devices_per_node

    def speed(self, number_format: Format) -> float:
        """Operations per second of products in a format. Raises `ScenarioError` where the file does not say."""
        if number_format not in self.device.matmul_flops:
            formats = ", ".join(self.device.matmul_flops)
            raise ScenarioError(
                [
                    Mistake(
                        self.name,
                        None,
                        f"device.matmul_flops.{number_format}",
                        f"is needed for this workload, and only {formats} is there: measure it, or look it up and say "
                        "where",
                    )
                ]
            )
        return self.device.matmul_flops[number_format]

    def with_devices(self, count: int) -> "Cluster":
        """The same cluster with `count` devices: on as few nodes as hold them. Raises `ScenarioError` where they do not
        fill their nodes."""
        per_node = min(count, self.devices_per_node)
        if count % per_node:
            problem = f"{count} devices do not fill nodes of {self.devices_per_node}"
            raise ScenarioError([Mistake(self.name, None, "devices_per_node", problem)])
        return self.model_copy(update={"nodes": count // per_node, "devices_per_node": per_node})


def shipped_names() -> list[str]:
    """The names of the clusters that come with parbench."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in resources.files(SHIPPED).iterdir() if entry.name.endswith(".yaml")
    )


def find_cluster(name_or_path: str) -> Cluster:
    """The cluster in a file, or the one of this package with that name. Raises `ScenarioError` with every mistake."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_cluster(path)
    return shipped_cluster(name_or_path)


@cache
def shipped_cluster(name: str) -> Cluster:
    """The cluster of this package with that name. Raises `ScenarioError` where there is none."""
    if name not in shipped_names():
        problem = f"is neither a file nor a cluster that comes with parbench{suggest(name, shipped_names())}"
        raise ScenarioError([Mistake(name, None, "", problem)])
    text = resources.files(SHIPPED).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return _validated(parse_document(text, source=f"{name}.yaml", keys=KEYS))


def read_cluster(path: Path) -> Cluster:
    """The cluster in a file, which may be what `parbench doctor --save` wrote. Raises `ScenarioError`."""
    document = read_document(path, keys=KEYS)
    if MEASURED_KEY in document.data:
        return measured_cluster(read_machine(path), str(path))
    return _validated(document)


def cluster_schema() -> JsonSchemaValue:
    """The JSON Schema of a cluster's file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Cluster.model_json_schema()}


def measured_cluster(machine: MachineRecord, source: str) -> Cluster:
    """A machine that measured itself, as a cluster of which it is one node.

    Raises `ScenarioError` with everything that it did not measure.
    """
    device = machine.device
    curve = machine.curve("all_reduce", max((each.ranks for each in machine.curves if each.points), default=0))
    missing = {
        "device.matmul_flops": device.matmul_flops,
        "device.memory_gib": device.memory_gib,
        "device.copy_bytes_per_s": device.copy_bytes_per_s,
        "curves": curve and curve.fit,
    }
    absent = [field for field, value in missing.items() if not value]
    if absent or curve is None or curve.fit is None:
        problem = "was not measured, and a prediction needs it: run parbench doctor --save again, or add it to the file"
        raise ScenarioError([Mistake(source, None, field, problem) for field in absent or ["curves"]])
    link = {"bandwidth": curve.fit.bus_bandwidth, "latency_s": max(0.0, curve.fit.latency_s)}
    memory = (device.memory_gib or 0.0) / (device.count if device.kind == "cpu" else 1)
    return Cluster.model_validate(
        {
            "name": device.name or source,
            "description": f"measured by parbench doctor --save, {machine.measured_at}",
            "nodes": machine.nodes,
            "devices_per_node": device.count,
            "device": {
                "name": device.name or device.kind,
                "kind": device.kind,
                "memory_gib": memory,
                "memory_bandwidth": device.copy_bytes_per_s,
                "matmul_flops": dict(device.matmul_flops),
            },
            "links": {"node": link, "network": link},
            "sources": {"device": f"measured {machine.measured_at}", "links": f"measured {machine.measured_at}"},
        }
    )


def _validated(document: Document) -> Cluster:
    try:
        return Cluster.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    mistakes = []
    for detail in details:
        unknown = detail["type"] == "extra_forbidden"
        keys = _keys_at(detail["loc"][:-1])
        problem = unknown_key(str(detail["loc"][-1]), keys) if unknown else explain(detail)
        mistakes.append(document.mistake(detail["loc"], problem))
    raise ScenarioError(mistakes)


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the mapping at `location` of a cluster's file may have."""
    model: Any = Cluster
    for step in location:
        fields: Mapping[str, Any] = model.model_fields
        model = fields[str(step)].annotation
    return list(model.model_fields)
