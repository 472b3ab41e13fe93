"""Finds pluggable classes: those in the modules of a package, and those of plug-ins by their entry points."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from parbench.errors import PluginError

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name: the built-in ones in `package`, and those of the entry-point `group`, by default `package`.

    Built-in classes are defined in modules of the package or, where each has a folder, in that folder's `module`. A
    class adds itself when it is defined. Nothing is imported before a name is first needed.
    """

    def __init__(self, package: str, *, group: str | None = None, module: str | None = None) -> None:
        self.package = package
        self.group = group or package
        self.module = module
        self.broken: dict[str, str] = {}
        self._classes: dict[str, type[T]] = {}
        self._discovered = False

    def add(self, name: str, cls: type[T]) -> None:
        """Registers `cls`; raises `PluginError` if another class has the name already."""
        other = self._classes.get(name)
        if other is not None and _location(other) != _location(cls):
            raise PluginError(
                f"{self.group}: {_location(cls)} takes the name '{name}' of {_location(other)}; rename one"
            )
        self._classes[name] = cls

    def names(self) -> list[str]:
        """Every usable name, sorted."""
        return sorted(self.classes())

    def classes(self) -> dict[str, type[T]]:
        """Every usable class by its name. Plug-ins that could not be imported are in `broken`, each with the reason."""
        if not self._discovered:
            self._discovered = True
            self._import_built_ins()
            for entry_point in entry_points(group=self.group):
                self._import_plugin(entry_point)
        return self._classes

    def __getitem__(self, name: str) -> type[T]:
        classes = self.classes()
        if name in classes:
            return classes[name]
        if name in self.broken:
            raise PluginError(f"{self.group}: '{name}' could not be imported: {self.broken[name]}")
        raise PluginError(f"{self.group}: there is no '{name}'; known are {', '.join(self.names())}")

    def __contains__(self, name: str) -> bool:
        return name in self.classes()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _import_built_ins(self) -> None:
        for info in pkgutil.iter_modules(importlib.import_module(self.package).__path__, prefix=f"{self.package}."):
            if self.module is None:
                importlib.import_module(info.name)
            elif info.ispkg and importlib.util.find_spec(f"{info.name}.{self.module}"):
                importlib.import_module(f"{info.name}.{self.module}")

    def _import_plugin(self, entry_point: EntryPoint) -> None:
        try:
            entry_point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything; `broken` shows it
            package = entry_point.dist.name if entry_point.dist else "unknown"
            self.broken[entry_point.name] = f"{type(error).__name__}: {error} (package {package}, {entry_point.value})"


def _location(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
