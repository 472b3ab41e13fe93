"""Keys of what is measured: two cells with the same key are the same measurement."""

import hashlib
import json
from typing import Any

from parbench.base_types import DeviceKind
from parbench.records.assignment import PARITY_STEPS
from parbench.records.trial import SCHEMA_VERSION
from parbench.scenario.specs import Scenario, WorkloadSpec

NOT_MEASURED = {"rounds", "deadline_s", "verify_steps"}
"""How often one measures, how long one waits, and how much of it one verifies, changes no measurement."""


def cell_key(scenario: Scenario, workload: WorkloadSpec, kind: DeviceKind, **place: Any) -> str:
    """The hash of all in the scenario that decides what is measured; `place` says how it is laid out, and over what."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "parity_steps": PARITY_STEPS,
        "workload": workload.model_dump(mode="json"),
        "device_kind": kind,
        "cores_per_device": scenario.devices.cores_per_device,
        "measure": scenario.measure.model_dump(mode="json", exclude=NOT_MEASURED),
        **{
            key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            for key, value in place.items()
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def plainly(workload: WorkloadSpec) -> WorkloadSpec:
    """The workload without compilation, which must not change its losses: what those are compared with is eager.

    What saves memory stays: one device may have no room for the reference without it.
    """
    return workload.model_copy(update={"compile": False})
