"""Memory of a trial, and the parameters that fill it."""

from parbench.figures.base import Figure
from parbench.records.cell import CellRecord
from parbench.records.trial import MemoryRecord, Trial


def peak_memory_bytes(trial: Trial) -> int | None:
    """The largest rank's peak in bytes; of a rank with several CUDA devices, the fullest device."""
    peaks = [peak for rank in trial.ranks if (peak := _rank_peak(rank.memory)) is not None]
    return max(peaks, default=None)


def device_memory_bytes(trial: Trial) -> int | None:
    """What was in use on the fullest GPU, in bytes, by all processes on it; None without GPUs, or where NVML is not."""
    used = [device.device_used for rank in trial.ranks for device in rank.memory.devices]
    return max((each for each in used if each is not None), default=None)


def parameters(trial: Trial) -> int:
    """The parameters that all ranks hold together, of all models."""
    return sum(job.parameters for rank in trial.ranks for job in rank.jobs)


def memory_by_rank(trial: Trial) -> dict[int, dict[str, int]]:
    """Each rank's peak in bytes, cut into kinds that add up; of a rank with several CUDA devices, the fullest one."""
    return {rank.rank: kinds for rank in trial.ranks if (kinds := _memory_kinds(rank.memory))}


def own_growth(memory: MemoryRecord) -> int | None:
    """The peak growth of resident memory without pages of files, in bytes; None where it is unknown.

    An approximation: the kernel keeps a peak of all resident pages together (proc(5), VmHWM), and how many of them
    were pages of files is known at the start and at the end alone. Such pages come as libraries' code is run for the
    first time and hardly ever go. Records of older versions count them in.
    """
    if memory.resident_growth is None:
        return None
    return max(0, memory.resident_growth - (memory.file_growth or 0))


def devices_in_a_rank(trial: Trial, cell: CellRecord) -> int:
    """Of how many devices a rank's peak is the sum: on CPU, of all that the rank drives; 1 on CUDA."""
    return max(1, cell.devices // len(trial.ranks)) if cell.device_kind == "cpu" and trial.ranks else 1


def _rank_peak(memory: MemoryRecord) -> int | None:
    if memory.devices:
        return max(device.allocated_peak for device in memory.devices)
    return own_growth(memory)


def _memory_kinds(memory: MemoryRecord) -> dict[str, int]:
    if memory.devices:
        fullest = max(memory.devices, key=lambda device: device.allocated_peak)
        return {
            "allocated": fullest.allocated_peak,
            "reserved beyond that": max(0, fullest.reserved_peak - fullest.allocated_peak),
        }
    growth = own_growth(memory)
    return {} if growth is None else {"resident growth": growth}


PEAK_MEMORY_BYTES = Figure(
    name="peak_memory_bytes",
    title="memory/rank",
    unit="bytes",
    better="lower",
    meaning="The largest rank's peak, the median over rounds. CUDA: the peak that torch allocated on a device. "
    "CPU: the peak growth of resident memory over what was there before the model was built, less the growth of "
    "pages of files, such as libraries' code that runs for the first time: an approximation, as these are counted at "
    "the trial's end. On CPU a rank that drives several devices holds the memory of all of them.",
    of=lambda launch: peak_memory_bytes(launch.trial),
    shown_in=("table", "terminal always"),
    gate="relative",
)

DEVICE_MEMORY_BYTES = Figure(
    name="device_memory_bytes",
    title="memory/device",
    unit="bytes",
    better="lower",
    meaning="What was in use on the fullest GPU after the window, the median over rounds, as NVML tells it: what torch "
    "reserved for all ranks on it, a CUDA context for each of them, and whatever other processes hold there.",
    of=lambda launch: device_memory_bytes(launch.trial),
)

PARAMETERS = Figure(
    name="parameters",
    title="parameters",
    unit="parameters",
    better=None,
    meaning="The parameters that all ranks hold together, of all models.",
    of=lambda launch: parameters(launch.trial),
    shown_in=(),
    gate="exact",
    portable=True,
)

FIGURES = (PEAK_MEMORY_BYTES, DEVICE_MEMORY_BYTES, PARAMETERS)
