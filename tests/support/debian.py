"""What tests need beyond Python, from Debian's packages."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from tests.support.waiting import PATIENCE_S


def require(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Installs `packages` unless all `programs` are there. Raises `LookupError`, with the reason, if they cannot be."""
    if all(map(shutil.which, programs)):
        return
    hint = f"{packages[0]} is not installed"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LookupError(f"{hint}, and only root can install it: apt-get install {' '.join(packages)}")
    # A new machine knows no package before the update. Runlevel 1: Debian would start the daemons that it installs.
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        try:
            ended = subprocess.run(
                ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={PATIENCE_S / 2:.0f}", *words],
                env={**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise LookupError(f"{hint}, and apt-get was not through with it in {late.timeout:g} s") from None
    if not all(map(shutil.which, programs)):
        raise LookupError(f"{hint}, and apt-get could not do it: {ended.stderr.strip().splitlines()[-1:]}")
