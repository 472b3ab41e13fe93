"""What `parbench doctor --save` does: refuses early, measures, keeps the file, and prints what is in it."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.campaign.curves import WORKER, Survey
from parbench.cli.console import console, plain, say
from parbench.errors import UsageError
from parbench.launch.local.launcher import LocalLauncher
from parbench.records.machine import CurveRecord, MachineRecord
from parbench.scenario.machine import write_machine
from parbench.system.devices import detect
from parbench.system.signals import Interrupted
from parbench.text import KIB, MIB, with_prefix


def require_writable(file: Path, *, force: bool) -> None:
    """Raises `UsageError` where the file cannot be written, or is there already and is not to be replaced."""
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; --force replaces it")
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name the file to write")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for {file.name}")
    if not os.access(file.parent, os.W_OK):
        raise UsageError(f"{file} cannot be written: nothing can be written to its folder")


def measure_into(file: Path, budget_s: float) -> bool:
    """Measures this machine for about `budget_s` seconds. Returns whether every launch succeeded."""
    launcher = LocalLauncher(WORKER)
    survey = Survey(launcher, detect(), say)
    try:
        launcher.start()
        record = survey.run(budget_s)
    except Interrupted as interruption:
        interruption.advice = "; nothing was saved"
        raise
    finally:
        launcher.close()
    write_machine(record, file)
    print_machine(record, console())
    for ranks, reason in survey.failures.items():
        say(f"{ranks} {'rank' if ranks == 1 else 'ranks'}: {reason}")
    say(f"This machine's speeds are in {file}")
    return not survey.failures


def print_machine(record: MachineRecord, console: Console) -> None:
    """Prints the rates of a device, and for each number of ranks a table of its operations by size."""
    device = record.device
    rates = [f"{name} {with_prefix(flops, 'FLOP/s')}" for name, flops in device.matmul_flops.items()]
    copies = [f"copies {with_prefix(device.copy_bytes_per_s, 'B/s')}"] if device.copy_bytes_per_s else []
    console.print(Text(plain(f"{device.count} × {device.name or device.kind}: {', '.join([*rates, *copies])}")))
    for ranks in sorted({curve.ranks for curve in record.curves}):
        curves = [curve for curve in record.curves if curve.ranks == ranks]
        if any(curve.points for curve in curves):
            title = f"{ranks} ranks over {record.backend}: time of a call, bandwidth on the bus"
            console.print(_table(curves, title))
        for note, operations in _notes(curves).items():
            line = f"{', '.join(operations)} between {ranks} ranks: {note}"
            console.print(Text(plain(line), style="dim"), soft_wrap=True)


def _table(curves: Sequence[CurveRecord], title: str) -> Table:
    table = Table("size", title=Text(title), title_justify="left")
    for curve in curves:
        table.add_column(curve.operation, justify="right")
    points = [{point.size: point for point in curve.points} for curve in curves]
    for size in sorted({size for each in points for size in each}):
        cells = (each.get(size) for each in points)
        table.add_row(_size(size), *(_time_and_rate(at.seconds, at.bus_bandwidth) if at else "–" for at in cells))
    table.add_section()
    fits = [curve.fit for curve in curves]
    table.add_row("fitted", *(_time_and_rate(fit.latency_s, fit.bus_bandwidth) if fit else "–" for fit in fits))
    table.add_row("residual", *(f"{fit.residual:.0%}" if fit else "–" for fit in fits))
    return table


def _notes(curves: Sequence[CurveRecord]) -> dict[str, list[str]]:
    """What is missing and why, with the operations of which that is so."""
    notes: dict[str, list[str]] = {}
    for curve in curves:
        for note in filter(None, (curve.unavailable, curve.left_out)):
            notes.setdefault(note, []).append(curve.operation)
    return notes


def _time_and_rate(seconds: float, bandwidth: float) -> str:
    return f"{with_prefix(seconds, 's')}  {with_prefix(bandwidth, 'B/s')}"


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
