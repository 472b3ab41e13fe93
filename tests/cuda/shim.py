"""Builds the shim that lets a CPU build of torch run fake tensors on CUDA, and loads it."""

import ctypes
import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.cpp")


def torch_folder() -> Path:
    """The folder of the installed torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def build_shim() -> Path | None:
    """The shared object, built once for a torch and a source; None where there is no C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    version = (torch_folder() / "version.py").read_bytes()
    digest = hashlib.sha256(version + SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"parbench-fake-cuda-{digest}.so"
    if not library.exists():
        half = library.with_suffix(f".{id(library)}.tmp")
        include = torch_folder() / "include"
        command = [
            compiler, "-shared", "-fPIC", "-std=c++20", "-O0", f"-I{include}",
            f"-I{include / 'torch/csrc/api/include'}", str(SOURCE), "-o", str(half),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, text=True)
        half.replace(library)
    return library


def load_shim(library: Path) -> None:
    """Loads it after torch's libraries and before torch: torch looks for CUDA as it is imported."""
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
