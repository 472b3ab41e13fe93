"""A commit of the user's repository, checked out into a temporary folder."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from parbench.errors import UsageError


class Checkout(NamedTuple):
    """A commit of the repository at `root`, checked out at `tree`."""

    root: Path
    tree: Path

    def locate(self, folder: Path) -> Path:
        """The path in the checkout of a folder of the repository; any other folder's own path."""
        path = folder.resolve()
        return self.tree / path.relative_to(self.root) if path.is_relative_to(self.root) else folder


@contextlib.contextmanager
def check_out(reference: str) -> Iterator[Checkout]:
    """A checkout of `reference` from the repository of the current folder, removed after the block.

    Raises `UsageError` if git cannot do it.
    """
    root = Path(_git("rev-parse", "--show-toplevel")).resolve()
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{reference}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="parbench-") as temporary:
        tree = Path(temporary).resolve() / "base"
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield Checkout(root, tree)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def import_folders(root: Path, tree: Path) -> tuple[Path, ...]:
    """The counterparts in `tree` of this process's import paths in `root`, then `tree` itself and its `src`."""
    paths = (Path(entry or os.curdir).resolve() for entry in sys.path)
    inside = [folder.relative_to(root) for folder in paths if folder.is_relative_to(root)]
    folders = dict.fromkeys([*inside, Path(), Path("src")])
    return tuple(tree / folder for folder in folders if (tree / folder).is_dir())


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise UsageError("--against git:REF needs git, which is not installed")
    ended = subprocess.run(  # noqa: S603 - a list of arguments, no shell
        [git, *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise UsageError(f"git {arguments[0]} failed: {lines[-1] if lines else f'exit code {ended.returncode}'}")
    return ended.stdout.strip()
