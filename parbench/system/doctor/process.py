"""Checks of what a process of parbench gets: torch, memory, room for files, and its environment variables."""

import os
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from parbench.system.doctor.check import Check, warn_if
from parbench.system.kernel import CGROUP, read
from parbench.system.software import installed_torch
from parbench.text import GIB

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written there
OLDEST_TORCH, FIRST_UNTRIED_TORCH = (2, 11), (2, 14)
OPEN_FILES = 1024
HARMFUL_VARIABLES = (
    ("OMP_WAIT_POLICY", "passive", "Unset it: threads that sleep between operators can double a step's time."),
    ("GOMP_SPINCOUNT", "0", "Unset it: threads that sleep between operators can double a step's time."),
    ("OMP_NUM_THREADS", ".*", "Unset it: ranks ignore it and use as many threads as their device has cores."),
    ("LD_PRELOAD", ".+", "Unset it unless what it loads is part of what you measure."),
    ("CUDA_LAUNCH_BLOCKING", "[1-9].*", "Unset it: every kernel launch waits for the GPU."),
    ("PYTORCH_NO_CUDA_MEMORY_CACHING", ".+", "Unset it: every tensor costs a cudaMalloc."),
    ("TORCH_DISTRIBUTED_DEBUG", "info|detail", "Unset it: every collective is checked."),
    ("NCCL_DEBUG", "info|trace", "Unset it: collectives write a log."),
    ("NCCL_P2P_DISABLE", "[1-9].*", "Unset it: GPUs exchange through the host's memory."),
)


def check_torch() -> Iterator[Check]:
    """Is there a torch that parbench was tried with?"""
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST_TORCH, FIRST_UNTRIED_TORCH))
    advice = f"Install torch>={oldest},<{newest}."
    version, cuda = installed_torch()
    if version is None:
        yield Check("torch", "problem", "not installed", advice)
        return
    release = tuple(map(int, re.findall(r"\d+", version)[:2]))
    untried = not OLDEST_TORCH <= release < FIRST_UNTRIED_TORCH
    yield warn_if(untried, "torch", f"{version}, built for {f'CUDA {cuda}' if cuda else 'CPU'}", advice)


def check_memory() -> Iterator[Check]:
    """Is there memory for the models, without swapping?"""
    memory, swapped = psutil.virtual_memory(), psutil.swap_memory().used
    limit = read(CGROUP / "memory.max") or ""
    granted = min(memory.total, int(limit)) if limit.isdecimal() else memory.total
    free = min(memory.available, granted)
    state = f"{free / GIB:.1f} of {granted / GIB:.1f} GiB available"
    yield warn_if(free < max(2 * GIB, granted / 10), "memory", state, "Stop what holds the memory.")
    if swapped > GIB // 16:
        advice = "Free memory and empty the swap: sudo swapoff -a && sudo swapon -a."
        yield Check("swap", "warning", f"{swapped / GIB:.1f} GiB in use", advice)


def check_variables() -> Iterator[Check]:
    """Is an environment variable set that slows torch down, or is not what it seems?"""
    harmful = [
        Check("variable", "warning", f"{name}={os.environ[name]}", advice)
        for name, pattern, advice in HARMFUL_VARIABLES
        if name in os.environ and re.fullmatch(pattern, os.environ[name].strip(), re.IGNORECASE)
    ]
    yield from harmful or [Check("variables", "ok", "none set that would disturb a measurement")]


def check_space() -> Iterator[Check]:
    """Is there room for what ranks share, and for results?"""
    yield from _room("shared memory", SHARED_MEMORY, "Give the container more: docker run --shm-size=8g.")
    yield from _room("disk", Path(), "Free space in this folder's file system, or run in another folder.")


def check_open_files() -> Iterator[Check]:
    """May ranks open enough sockets and files?"""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = limit != resource.RLIM_INFINITY and limit < OPEN_FILES
    state = "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit}"
    yield warn_if(few, "open files", state, f"Raise the limit: ulimit -n {4 * OPEN_FILES}.")


def check_plug_ins(broken: Mapping[str, str]) -> Iterator[Check]:
    """Which plug-ins could not be imported?"""
    for name, reason in broken.items():
        yield Check(f"plug-in {name}", "problem", reason, "Mend or uninstall the package that provides it.")


def _room(topic: str, path: Path, advice: str) -> Iterator[Check]:
    with suppress(OSError):
        free = shutil.disk_usage(path).free
        yield warn_if(free < GIB, topic, f"{free / GIB:.1f} GiB free", advice)
