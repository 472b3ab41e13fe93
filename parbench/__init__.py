"""parbench: which way of spreading a language model over your devices is fastest, measured."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"

MOVED = {
    "parbench.devices": "parbench.system.devices",
    "parbench.workloads": "parbench.models",
    "parbench.workloads.base": "parbench.models.base",
    "parbench.workloads.whole": "parbench.models.whole",
}
"""Modules that older plug-ins import, and where each of them is now."""


class _MovedModules:
    """Finds the modules in `MOVED` by their old names, warns, and hands on what is in the new ones.

    Not derived from the classes in `importlib.abc`: importing that takes longer than all else that `--help` needs.
    """

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG004
        if fullname not in MOVED:
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in MOVED)
        return ModuleSpec(fullname, _MovedModules, is_package=is_package)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """None asks for an ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        import importlib
        import warnings

        new_name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {new_name}", DeprecationWarning, stacklevel=2)
        new_module = importlib.import_module(new_name)
        module.__doc__ = new_module.__doc__
        module.__dict__["__getattr__"] = lambda name: getattr(new_module, name)


# Before Python's own: a folder of before that still holds bytecode would pass for a package.
sys.meta_path.insert(0, _MovedModules)
