"""Functions from users' own files and modules, imported because a scenario names them."""

import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from parbench.errors import Unsupported, first_words
from parbench.system.reading import read_whole

MAX_BYTES = 10_000_000
"""The largest size of a file with a function."""


T = TypeVar("T")


def load_function(reference: str, folder: Path) -> tuple[Callable[..., Any], str]:
    """The function that `path/to/file.py:name` or `package.module:name` names, and the SHA-256 of its file.

    Paths start at `folder`. A file runs from the same bytes that are hashed, at most once in a process. Raises
    `Unsupported` where there is no such file, module or function, or where importing it raises.
    """
    place, _, name = reference.rpartition(":")
    is_file = place.endswith(".py") or "/" in place
    module, sha256 = _import_file(_expand(place, folder), place) if is_file else _import_module(place)
    function = getattr(module, name, None)
    if function is None:
        raise Unsupported(f"{place} has no function {name}", field="build")
    if not callable(function):
        raise Unsupported(f"{name} in {place} is not a function", field="build")
    return function, sha256


class _Loader(importlib.abc.InspectLoader):
    """Runs bytes that have been read already, and writes no compiled file beside the user's own."""

    def __init__(self, content: bytes, path: Path) -> None:
        self._content = content
        self._path = path

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - there is but one
        """The source text."""
        return importlib.util.decode_source(self._content)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - there is but one
        """The compiled source; tracebacks name its file."""
        return self.source_to_code(self._content, str(self._path))


def _import_file(path: Path, place: str) -> tuple[ModuleType, str]:
    try:
        path = path.resolve()
        content = read_whole(path, MAX_BYTES)
    except OSError as error:
        raise Unsupported(f"{path} cannot be read: {error.strerror}", field="build") from None
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"parbench_custom_{hashlib.sha256(f'{path}:{sha256}'.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        loader = _Loader(content, path)
        module = ModuleType(name)
        module.__file__ = str(path)
        # Registered before it runs, because dataclasses look up their module.
        sys.modules[name] = module
        try:
            _import(place, lambda: loader.exec_module(module))
        except Unsupported:
            del sys.modules[name]
            raise
    return sys.modules[name], sha256


def _expand(place: str, folder: Path) -> Path:
    try:
        return folder / Path(place).expanduser()
    except RuntimeError as error:  # `~user`, where this machine has no such user
        raise Unsupported(f"{place} cannot be read: {error}", field="build") from None


def _import_module(place: str) -> tuple[ModuleType, str]:
    module = _import(place, lambda: importlib.import_module(place))
    file = getattr(module, "__file__", None)
    return module, hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()


def _import(place: str, run: Callable[[], T]) -> T:
    try:
        return run()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - people's code may raise anything
        raise Unsupported(f"{place} cannot be imported: {first_words(error)}", field="build") from None
