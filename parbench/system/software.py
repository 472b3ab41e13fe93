"""The torch that is installed and the libraries that it calls, read without importing them."""

import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType


def torch_build() -> tuple[str, str | None] | None:
    """The installed torch's version and the CUDA version it was built for (None: a CPU build); None without torch.

    Read from torch's own version file: importing torch takes seconds and hundreds of megabytes.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    version = _version_module(Path(spec.submodule_search_locations[0]) / "version.py")
    return str(version.__version__), getattr(version, "cuda", None)


@cache
def _version_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_version", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"torch is installed without {path}; install it again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed_torch() -> tuple[str | None, str | None]:
    """The installed torch's version and the CUDA version it was built for; None for what there is not."""
    try:
        return torch_build() or (None, None)
    except (OSError, ImportError):
        return None, None


def installed_libraries(cuda: str | None) -> dict[str, str]:
    """The versions of NCCL, cuDNN and Triton that were installed for a torch for this CUDA, by their names.

    Empty on CPU; what came another way than as a package, such as with the system, is left out.
    """
    if cuda is None:
        return {}
    major = cuda.partition(".")[0]
    packages = {"nccl": f"nvidia-nccl-cu{major}", "cudnn": f"nvidia-cudnn-cu{major}", "triton": "triton"}
    return {
        name: installed for name, package in packages.items() if (installed := _package_version(package)) is not None
    }


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
