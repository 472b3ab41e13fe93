"""Memory of a trial."""

from parbench.records.trial import MemoryRecord, Trial


def peak_memory_bytes(trial: Trial) -> int | None:
    """The largest rank's peak in bytes; of a rank with several CUDA devices, the fullest device."""
    peaks = [peak for rank in trial.ranks if (peak := _rank_peak(rank.memory)) is not None]
    return max(peaks, default=None)


def _rank_peak(memory: MemoryRecord) -> int | None:
    if memory.devices:
        return max(device.allocated_peak for device in memory.devices)
    return memory.resident_growth


def memory_by_rank(trial: Trial) -> dict[int, dict[str, int]]:
    """Each rank's peak in bytes, cut into kinds that add up; of a rank with several CUDA devices, the fullest one."""
    return {rank.rank: kinds for rank in trial.ranks if (kinds := _memory_kinds(rank.memory))}


def _memory_kinds(memory: MemoryRecord) -> dict[str, int]:
    if memory.devices:
        fullest = max(memory.devices, key=lambda device: device.allocated_peak)
        return {
            "allocated": fullest.allocated_peak,
            "reserved beyond that": max(0, fullest.reserved_peak - fullest.allocated_peak),
        }
    return {} if memory.resident_growth is None else {"resident growth": memory.resident_growth}
