"""parbench: which way of spreading a language model over your devices is fastest, measured."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

MOVED = {
    "parbench.devices": "parbench.system.devices",
    "parbench.workloads": "parbench.models",
    "parbench.workloads.base": "parbench.models.base",
    "parbench.workloads.whole": "parbench.models.whole",
}
"""Modules that plug-ins import by names from before, and where they are now."""


class _MovedModules(MetaPathFinder, Loader):
    """Hands on what has moved, and says where to."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(fullname, self, is_package=fullname == "parbench.workloads") if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        present = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {present}", DeprecationWarning, stacklevel=2)
        module.__dict__["__getattr__"] = lambda name: getattr(importlib.import_module(present), name)


sys.meta_path.append(_MovedModules())
