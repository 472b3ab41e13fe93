"""The torch and NCCL that are installed, read without importing them."""

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


def installed_nccl(cuda: str | None) -> str | None:
    """The version of the NCCL package that torch for this CUDA needs; None on CPU, or where NCCL came another way."""
    if cuda is None:
        return None
    try:
        return version(f"nvidia-nccl-cu{cuda.partition('.')[0]}")
    except PackageNotFoundError:
        return None
