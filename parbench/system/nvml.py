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
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):  # the second, where the driver is an older one
        return None


def nvml_gpu_uuids() -> list[str]:
    """The UUID of every NVIDIA GPU that answers, in the driver's order; empty where there is no driver.

    A GPU that is cut into slices (MIG) is named by its first slice, which is all of it that CUDA shows to a process,
    or left out where it has none.
    """
    with nvml() as driver:
        if driver is None:
            return []
        count = answer(driver.nvmlDeviceGetCount) or 0
        handles = [answer(driver.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        devices = [_first_slice(driver, handle) if is_sliced(driver, handle) else handle for handle in handles]
        uuids = [answer(driver.nvmlDeviceGetUUID, device) for device in devices if device is not None]
        return [str(uuid) for uuid in uuids if uuid is not None]


def visible_gpus(uuids: Sequence[str], selection: str | None) -> list[str]:
    """The UUIDs that CUDA shows under CUDA_VISIBLE_DEVICES=`selection`, in its order.

    Entries are indices or prefixes of UUIDs. As in CUDA, an entry that names no GPU hides itself and all after it.
    CUDA shows a process one slice of a GPU at most, and then nothing else (NVIDIA MIG User Guide, "CUDA Device
    Enumeration").
    """
    visible = list(uuids) if selection is None else _select(uuids, selection)
    return [uuid for uuid in visible if uuid.startswith("MIG-")][:1] or visible


def _select(uuids: Sequence[str], selection: str) -> list[str]:
    selected: list[str] = []
    for entry in map(str.strip, selection.split(",")):
        if entry.startswith("MIG-"):
            selected.append(entry)
            continue
        matches = [uuids[int(entry)]] if entry.isdecimal() and int(entry) < len(uuids) else []
        matches = matches or [uuid for uuid in uuids if entry.startswith("GPU-") and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        selected.append(matches[0])
    return selected


def gpu_handles(driver: Any) -> list[Any]:
    """NVML's handles of the GPUs that CUDA shows to this process, in CUDA_VISIBLE_DEVICES' order."""
    uuids = visible_gpus(nvml_gpu_uuids(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    handles = [gpu_handle(driver, uuid) for uuid in uuids]
    return [handle for handle in handles if handle is not None]


def gpu_handle(driver: Any, uuid: str) -> Any:
    """NVML's handle of the GPU, or slice of one, with this UUID; None where the driver shows no such GPU."""
    return answer(driver.nvmlDeviceGetHandleByUUID, uuid)


def gpu_of_torch(driver: Any, uuid: object) -> tuple[str, Any]:
    """The name of the GPU that torch calls by this UUID, and NVML's handle of it; torch leaves out whether it is MIG.

    The handle is None where the driver shows no such GPU.
    """
    names = (f"GPU-{uuid}", f"MIG-{uuid}")
    handles = ((name, gpu_handle(driver, name)) for name in names)
    return next(((name, handle) for name, handle in handles if handle is not None), (names[0], None))


def whole_gpu(driver: Any, gpu: Any) -> Any:
    """The handle of the GPU that a slice belongs to, which knows what slices do not; of a whole GPU, its own."""
    return answer(driver.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, gpu) or gpu


def is_sliced(driver: Any, gpu: Any) -> bool:
    """Whether a GPU is in MIG mode now."""
    mode = None if gpu is None else answer(driver.nvmlDeviceGetMigMode, gpu)
    return mode is not None and mode[0] == driver.NVML_DEVICE_MIG_ENABLE


def name_compute_mode(driver: Any, mode: int | None) -> str | None:
    """What NVML's compute mode means; None where a GPU admits all processes, or does not tell."""
    names = {
        driver.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive process",
        driver.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
    }
    return names.get(mode)


def _first_slice(driver: Any, gpu: Any) -> Any:
    count = answer(driver.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0
    slices = (answer(driver.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index) for index in range(count))
    return next((each for each in slices if each is not None), None)
