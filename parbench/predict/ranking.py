"""The fastest layouts that fit: searched, predicted with intervals, and compared with each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from parbench.predict.calibrate import predicted
from parbench.predict.clusters import Cluster
from parbench.predict.cost import Costs, model_flops, step_costs
from parbench.predict.fitted import EXTRAPOLATION, WIDER, Fitted
from parbench.predict.memory import TIGHT, Memory, memory_need
from parbench.predict.problem import Array, Problem
from parbench.predict.search import Search
from parbench.predict.workloads import Posed, pose
from parbench.scenario.specs import WorkloadSpec
from parbench.system.devices import Devices

KEPT = 4
"""Times as many layouts as are asked for are kept of each chunk, since ties are told among neighbours."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A layout with what is predicted of it. Throughput is of all devices; `low` and `high` hold the nominal share of
    measurements. `tie`: the first layout is not surely faster. `extrapolated`: nothing as large was fitted.
    """

    layout: dict[str, float]
    tokens_per_s: float
    low: float
    high: float
    step_s: float
    mfu: float | None
    shares: dict[str, float]
    memory: dict[str, float]
    capacity: float
    fits: str
    tie: bool = False
    extrapolated: bool = False

    @property
    def words(self) -> str:
        """The layout as people read it."""
        return describe(self.layout)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The best layouts of a workload on so many devices, how many were looked at, and how many of them fit."""

    workload: str
    devices: int
    cluster: Cluster
    predictions: Sequence[Prediction]
    layouts: int
    fitting: int
    assumed: Sequence[str]
    refusals: dict[str, int]


def rank(name: str, workload: WorkloadSpec, cluster: Cluster, fitted: Fitted, top: int) -> Ranking:
    """The `top` fastest layouts that fit on all devices of a cluster, the fastest first.

    Raises `UsageError` and `ScenarioError` for what cannot be predicted.
    """
    posed = pose(workload, cluster)
    devices = Devices(kind=cluster.device.kind, count=cluster.devices, nodes=cluster.nodes)
    search = Search(workload, devices)
    best: list[Prediction] = []
    layouts = fitting = 0
    for columns in search.chunks():
        problem = Problem.over(posed.numbers, columns)
        need = memory_need(problem)
        speed = predicted(problem, fitted.constants)
        is_possible = need.total <= problem.memory
        layouts, fitting = layouts + len(speed), fitting + int(is_possible.sum())
        order = np.argsort(np.where(is_possible, -speed, np.inf))[: min(KEPT * top, int(is_possible.sum()))]
        best += _predictions(posed, columns, order, cluster, fitted)
    best = sorted(best, key=lambda each: -each.tokens_per_s)[:top]
    return Ranking(
        workload=name,
        devices=cluster.devices,
        cluster=cluster,
        predictions=_with_ties(best, fitted),
        layouts=layouts,
        fitting=fitting,
        assumed=posed.assumed,
        refusals=search.refusals,
    )


def describe(layout: dict[str, float]) -> str:
    """A layout in words, such as `data 4 × pipeline 2 × tensor 8, 1f1b 16 × 1, zero, recompute full`."""
    degrees = [(name, int(layout[name])) for name in ("data", "pipeline", "context", "tensor")]
    text = " × ".join(f"{name} {degree}" for name, degree in degrees if degree > 1) or "one device"
    parts = [text, f"{int(layout['micro_batches'])} micro-batches of {layout['micro_batch']:g}"]
    if layout["interleave"] > 1:
        parts.append(f"interleaved {int(layout['interleave'])}")
    replicas = layout["data"] * layout["context"]
    if layout["shards"] > 1:
        parts.append("fsdp" if layout["shards"] == replicas else f"hsdp {int(layout['shards'])}")
    if layout["zero"]:
        parts.append("zero")
    if layout["sequence_parallel"]:
        parts.append("sequence parallel")
    if layout["recompute_attention"]:
        parts.append("recompute all" if layout["recompute"] else "recompute attention")
    return ", ".join(parts)


def _predictions(
    posed: Posed, columns: dict[str, Array], chosen: NDArray[np.intp], cluster: Cluster, fitted: Fitted
) -> list[Prediction]:
    if not len(chosen):
        return []
    columns = {name: values[chosen] for name, values in columns.items()}
    problem = Problem.over(posed.numbers, columns)
    costs, need = step_costs(problem, fitted.constants), memory_need(problem)
    speed = problem.step_tokens / costs.step
    extrapolated = cluster.devices > EXTRAPOLATION * fitted.most_devices
    unseen = cluster.device.generation not in fitted.generations
    reach = math.exp(fitted.reach() * WIDER ** (extrapolated + unseen))
    peak = _peak(cluster, posed)
    rate = speed * model_flops(problem) / cluster.devices
    return [
        Prediction(
            layout={name: float(values[index]) for name, values in columns.items()},
            tokens_per_s=float(speed[index]),
            low=float(speed[index] / reach),
            high=float(speed[index] * reach),
            step_s=float(costs.step[index]),
            mfu=float(rate[index] / peak) if peak else None,
            shares=_of_each(costs, index, float(costs.step[index])),
            memory=_of_each(need, index, 1.0),
            capacity=cluster.device.memory_bytes,
            fits="yes" if need.total[index] < (1 - TIGHT) * cluster.device.memory_bytes else "tight",
            extrapolated=extrapolated,
        )
        for index in range(len(speed))
    ]


def _of_each(parts: Costs | Memory, index: int, whole: float) -> dict[str, float]:
    """Each part of one element as a share of the whole. A part that is the same for all has one element."""
    values = {field.name: getattr(parts, field.name) for field in fields(parts)}
    return {name: float(value[min(index, len(value) - 1)]) / whole for name, value in values.items()}


def _peak(cluster: Cluster, posed: Posed) -> float | None:
    """The data sheet's operations per second in the format whose speed the problem has."""
    speeds, peaks = cluster.device.matmul_flops, cluster.device.peak_flops
    return next((peaks[name] for name in peaks if speeds.get(name) == posed.numbers["matmul"]), None)


def _with_ties(predictions: Sequence[Prediction], fitted: Fitted) -> list[Prediction]:
    """The predictions, each with whether the first one is surely faster: of two layouts, what is common cancels."""
    if not predictions:
        return []
    first = predictions[0].tokens_per_s
    reach = math.exp(fitted.pair_reach)
    return [replace(each, tie=first / each.tokens_per_s < reach) for each in predictions]
