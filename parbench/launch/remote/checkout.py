"""A commit of the user's repository, checked out beside it."""

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

    def moved(self, folder: Path) -> Path:
        """Where the commit has a folder of the repository; other folders stay where they are."""
        found = folder.resolve()
        return self.tree / found.relative_to(self.root) if found.is_relative_to(self.root) else folder


@contextlib.contextmanager
def checked_out(reference: str) -> Iterator[Checkout]:
    """A checkout of `reference` from the repository of the current folder, as long as the block lasts."""
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
    """Where `tree` keeps what this process imports from `root`, and the usual places."""
    below = (Path(entry or os.curdir).resolve() for entry in sys.path)
    inside = [folder.relative_to(root) for folder in below if folder.is_relative_to(root)]
    folders = dict.fromkeys([*inside, Path(), Path("src")])
    return tuple(tree / folder for folder in folders if (tree / folder).is_dir())


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise UsageError("--against git:REF needs git, which is not installed")
    ended = subprocess.run(  # noqa: S603 - a list of arguments, and no option can be smuggled in
        [git, *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        raise UsageError(f"git {arguments[0]} failed: {said[-1] if said else f'exit code {ended.returncode}'}")
    return ended.stdout.strip()
