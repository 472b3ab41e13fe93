"""NVIDIA's management library (NVML): the one place where it is imported and opened."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def nvml() -> Iterator[Any]:
    """NVML's functions, usable while the block lasts; None where there is no NVIDIA driver.

    NVML counts how often it is opened, so that blocks may be nested.
    """
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
    """The result of an NVML query; None where this driver or GPU does not support it."""
    import pynvml

    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return None


def nvml_gpu_uuids() -> list[str]:
    """The UUID of every NVIDIA GPU that the driver shows; empty where there is no driver."""
    with nvml() as driver:
        if driver is None:
            return []
        handles = map(driver.nvmlDeviceGetHandleByIndex, range(driver.nvmlDeviceGetCount()))
        return [str(driver.nvmlDeviceGetUUID(handle)) for handle in handles]


def visible_gpus(uuids: Sequence[str], selection: str | None) -> list[str]:
    """The UUIDs that CUDA shows under CUDA_VISIBLE_DEVICES=`selection`, in its order.

    Entries are indices or prefixes of UUIDs. As in CUDA, an entry that names no GPU hides itself and all after it.
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


def gpu_handles(driver: Any) -> list[Any]:
    """NVML's handles of the GPUs that CUDA shows to this process, in CUDA_VISIBLE_DEVICES' order."""
    uuids = visible_gpus(answer(nvml_gpu_uuids) or [], os.environ.get("CUDA_VISIBLE_DEVICES"))
    handles = [gpu_handle(driver, uuid) for uuid in uuids]
    return [handle for handle in handles if handle is not None]


def gpu_handle(driver: Any, uuid: str) -> Any:
    """NVML's handle of the GPU with this UUID; None where the driver shows no such GPU."""
    return answer(driver.nvmlDeviceGetHandleByUUID, uuid)
