"""Measures this machine itself: launches that compute and exchange and train nothing, in turns, within a time."""

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import psutil

from parbench import __version__
from parbench.base_types import Precision
from parbench.errors import NothingMeasuredError
from parbench.figures.curves import LaunchRecords, rounded, summarise_curves
from parbench.launch.base import Launcher
from parbench.launch.failure_cause import find_cause
from parbench.launch.open_files import require_open_files
from parbench.launch.trial_folder import read_ranks, write_new
from parbench.records.curves import CURVES_FILE, CurvesAssignment, Operation
from parbench.records.machine import CurveRecord, DeviceRecord, MachineRecord
from parbench.system.devices import Machine
from parbench.system.environment import Environment
from parbench.system.files import made, writing

WORKER = "parbench.measure.curves"
"""What the ranks of these launches run."""

SIZES = tuple(2**10 * 4**power for power in range(10))
"""1 KiB to 256 MiB."""

ROUNDS, VISITS = 3, 5
"""Launches of each number of ranks, in turns, and visits to each size in a launch: 15 samples, as time allows."""

LEAST_S = 2.0
"""The least share of the time: that of the first launch of each number of ranks, whatever those before it took."""

SPARE_S = 120.0
"""How much longer than its share of the time a launch may take before it counts as hanging."""

BLOCKS = 4
"""Tensors of the largest size for which a rank needs memory: two of its own, and what the backend holds."""


class Survey:
    """Launches 1, 2, 4, … ranks, up to the devices that there are, and keeps what they found by their number.

    `launcher` starts `WORKER` in each rank; `say` hears of every launch. `failures` has the reason of each number of
    ranks whose launch failed: it is not launched again.
    """

    def __init__(self, launcher: Launcher, machine: Machine, say: Callable[[str], None]) -> None:
        self.launcher = launcher
        self.machine = machine
        self.kind = machine.preferred_kind
        self.say = say
        self.counts = [2**power for power in range(machine.available(self.kind).bit_length())]
        self.found: dict[int, list[LaunchRecords]] = {}
        self.failures: dict[int, str] = {}

    def run(self, budget_s: float) -> MachineRecord:
        """Launches in turns for about `budget_s` seconds. Raises `NothingMeasuredError` where every launch failed."""
        require_open_files(self.counts[-1])
        until, turns = time.monotonic() + budget_s, self.counts * ROUNDS
        with tempfile.TemporaryDirectory(prefix="parbench-") as scratch:
            for number, ranks in enumerate(turns):
                share_s = (until - time.monotonic()) / (len(turns) - number)
                if ranks not in self.found:
                    share_s = max(share_s, LEAST_S)
                if ranks not in self.failures and share_s > 0:
                    self.say(f"[{number + 1}/{len(turns)}] {_describe(ranks)}")
                    self._launch(Path(scratch) / str(number), ranks, self._assign(ranks, number, share_s))
        if not self.found:
            raise NothingMeasuredError(f"nothing was measured: {next(iter(self.failures.values()))}")
        return self._record(self.launcher.environment(()))

    def _launch(self, folder: Path, ranks: int, assignment: CurvesAssignment) -> None:
        with writing(folder):
            made(folder)
            write_new(folder / CURVES_FILE, assignment.model_dump_json(indent=2).encode())
        outcome = self.launcher.launch(folder, processes=ranks, deadline_s=assignment.deadline_s)
        records = read_ranks(folder, ranks)
        status, reason = find_cause(outcome, records)
        if status == "ok":
            self.found.setdefault(ranks, []).append([record.curves for record in records if record.curves])
        else:
            self.failures[ranks] = f"{status}: {reason}"

    def _assign(self, ranks: int, seed: int, share_s: float) -> CurvesAssignment:
        on_cpu = self.kind == "cpu"
        return CurvesAssignment(
            device_kind=self.kind,
            threads=1 if on_cpu else max(1, len(self.machine.cores) // ranks),
            cores=self.machine.shares(ranks * on_cpu),
            matmul=tuple(each for each in get_args(Precision) if self.machine.refusal(each, self.kind) is None),
            sizes=_sizes(ranks, on_cpu=on_cpu),
            visits=VISITS,
            seed=seed,
            budget_s=share_s,
            deadline_s=share_s + SPARE_S,
        )

    def _record(self, environment: Environment) -> MachineRecord:
        return MachineRecord(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            parbench=__version__,
            backend="nccl" if self.kind == "cuda" else "gloo",
            device=self._device(environment),
            curves=tuple(curve for ranks in self.counts if ranks > 1 for curve in self._curves(ranks)),
            environment_digest=environment.digest,
            environment=environment.model_dump(mode="json"),
        )

    def _device(self, environment: Environment) -> DeviceRecord:
        """One device, with the best rates of all launches: whatever disturbs a launch makes it slower."""
        speed = environment.speed
        gpu = speed.accelerators[0] if self.kind == "cuda" and speed.accelerators else None
        alone = [record for launch in self.found.get(1, []) for record in launch]
        rates: dict[Precision, float] = {}
        unavailable = {each: why for each in get_args(Precision) if (why := self.machine.refusal(each, self.kind))}
        for record in alone:
            unavailable |= record.unavailable
            rates |= {each: max(flops, rates.get(each, 0.0)) for each, flops in record.matmul_flops.items()}
        if 1 in self.failures:
            unavailable["device"] = self.failures[1]
        return DeviceRecord(
            kind=self.kind,
            name=gpu.name if gpu else speed.cpu_model,
            count=self.machine.available(self.kind),
            memory_gib=gpu.memory_gib if gpu else speed.memory_gib,
            power_limit_w=gpu.power_limit_w if gpu else None,
            matmul_flops={precision: rounded(flops) for precision, flops in rates.items()},
            copy_bytes_per_s=max((rounded(record.copy_bytes_per_s or 0.0) for record in alone), default=None),
            unavailable=unavailable,
        )

    def _curves(self, ranks: int) -> Iterator[CurveRecord]:
        """The curves between so many ranks; where no launch of them did well, the reason in place of each."""
        if ranks not in self.found:
            for operation in get_args(Operation):
                yield CurveRecord(operation=operation, ranks=ranks, unavailable=self.failures[ranks])
            return
        for curve in summarise_curves(ranks, self.found[ranks]):
            if curve.points and not curve.left_out and curve.points[-1].size < SIZES[-1]:
                yield curve.model_copy(update={"left_out": "larger tensors of all ranks did not fit into the memory"})
            else:
                yield curve


def _describe(ranks: int) -> str:
    return "1 rank: matrix products and copies" if ranks == 1 else f"{ranks} ranks: operations by size"


def _sizes(ranks: int, *, on_cpu: bool) -> tuple[int, ...]:
    """The sizes of which each rank has a part, and for which all ranks together have the memory."""
    room = psutil.virtual_memory().available // (BLOCKS * ranks) if on_cpu else SIZES[-1]
    return tuple(size for size in SIZES if 4 * ranks <= size <= max(room, SIZES[0]))
