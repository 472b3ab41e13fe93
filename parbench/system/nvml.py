"""NVIDIA's management library: the one place where it is opened."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar


def nvml_gpu_uuids() -> list[str]:
    """The UUID of every NVIDIA GPU that the driver shows; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def visible_gpus(uuids: Sequence[str], selection: str | None) -> list[str]:
    """The UUIDs that CUDA shows under CUDA_VISIBLE_DEVICES=`selection`, in its order.

    As CUDA does, an entry that names no GPU hides itself and all after it. Entries are indices or UUID prefixes.
    """
    if selection is None:
        return list(uuids)
    visible: list[str] = []
    for entry in map(str.strip, selection.split(",")):
        if entry.startswith("MIG-"):
            # CUDA shows one process at most one slice of a GPU.
            return [*visible, entry]
        matches = [uuids[int(entry)]] if entry.isdecimal() and int(entry) < len(uuids) else []
        matches = matches or [uuid for uuid in uuids if entry.startswith("GPU-") and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        visible.append(matches[0])
    return visible


T = TypeVar("T")


@contextmanager
def nvml() -> Iterator[Any]:
    """NVML, ready for queries while the block lasts; None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def answer(query: Callable[..., T], *arguments: object) -> T | None:
    """What an NVML query returns; None where this driver or GPU does not answer it."""
    import pynvml

    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return None


def gpu_handles(driver: Any) -> list[Any]:
    """NVML's handles of the GPUs that CUDA shows to this process, in CUDA_VISIBLE_DEVICES' order."""
    uuids = visible_gpus(answer(nvml_gpu_uuids) or [], os.environ.get("CUDA_VISIBLE_DEVICES"))
    handles = [answer(driver.nvmlDeviceGetHandleByUUID, uuid) for uuid in uuids]
    return [handle for handle in handles if handle is not None]
