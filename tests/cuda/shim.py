"""Builds the shim that lets a CPU build of torch run fake tensors on CUDA, and loads it."""

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.cpp")


def torch_folder() -> Path:
    """The folder of the installed torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def build_shim(folder: Path) -> Path | None:
    """Builds the shared object in `folder`; None where there is no C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    library, include = folder / "fake_cuda.so", torch_folder() / "include"
    command = [
        compiler, "-shared", "-fPIC", "-std=c++20", "-O0", f"-I{include}",
        f"-I{include / 'torch/csrc/api/include'}", str(SOURCE), "-o", str(library),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def load_shim(library: Path) -> None:
    """Loads it after torch's libraries and before torch: torch looks for CUDA as it is imported."""
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
