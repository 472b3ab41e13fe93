"""Keys of what is measured: two cells with the same key are the same measurement."""

from typing import Any

from parbench.base_types import DeviceKind
from parbench.records.assignment import PARITY_STEPS
from parbench.records.trial import SCHEMA_VERSION
from parbench.scenario.specs import MeasureSpec, Options, Scenario, WorkloadSpec
from parbench.system.digests import digest_of_json

NOT_MEASURED = {"rounds", "base_launches", "deadline_s", "verify_steps", "account", "trace", "explain"}
"""Fields of `measure` that change no single measurement: how many there are, the time to wait, what is verified, what
is watched after the window, and what is launched beside cells."""

LATER_FIELDS = {"malloc": "default", "loss_chunks": 1, "compile_cache": "kept"}
"""Fields that older versions lack, with the value by which they measured: keys without that value stay as they were."""


def cell_key(scenario: Scenario, workload: WorkloadSpec, kind: DeviceKind, **place: Any) -> str:
    """16 hexadecimal digits that are equal for equal measurements: a hash of all that decides what is measured.

    `place` holds the strategy, its options and the devices; a reference has none of them.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "parity_steps": PARITY_STEPS,
        "workload": workload.model_dump(mode="json", exclude=_default_later(workload)),
        "device_kind": kind,
        "cores_per_device": scenario.devices.cores_per_device,
        "measure": scenario.measure.model_dump(mode="json", exclude=_left_out(scenario.measure, workload)),
        **{key: _without_default_later(value) if isinstance(value, Options) else value for key, value in place.items()},
    }
    return digest_of_json(content)[:16]


def _left_out(measure: MeasureSpec, workload: WorkloadSpec) -> set[str]:
    """Fields of `measure` that do not change how this workload is measured, or not from how older versions did it."""
    return NOT_MEASURED | _default_later(measure) | (set() if workload.compile else {"compile_cache"})


def _default_later(spec: MeasureSpec | WorkloadSpec) -> set[str]:
    return {name for name, default in LATER_FIELDS.items() if getattr(spec, name, None) == default}


def _without_default_later(options: Options) -> dict[str, Any]:
    """The options as plain data; one that older versions lack is left out where it has its default."""
    fields = type(options).model_fields
    default = {name for name in options.later_options if getattr(options, name) == fields[name].default}
    return options.model_dump(mode="json", exclude=default)


def without_compilation(workload: WorkloadSpec) -> WorkloadSpec:
    """The workload of the reference, which runs eagerly: compilation must not change losses, so they are compared.

    Options that save memory stay, because the reference may not fit on one device without them.
    """
    return workload.model_copy(update={"compile": False})
