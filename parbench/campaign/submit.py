"""Hands a campaign to a batch system, which runs the same command when it has free nodes."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parbench.errors import ResultsError, UsageError
from parbench.launch.base import BatchJob, Launcher, Site
from parbench.results.store import RUN_FILE
from parbench.system.files import keeping


def submit_campaign(
    launcher: type[Launcher],
    scenario: str,
    folder: Path,
    arguments: Sequence[str],
    options: Sequence[str],
    *,
    say: Callable[[str], None],
    site: Mapping[str, Any],
    resume: bool,
    dry_run: bool,
) -> str | None:
    """Submits `parbench ARGUMENTS`, which runs the campaign in `folder`. Returns the job's number; None on a dry run.

    The arguments contain `--resume`, so that the job can be submitted again. `say` receives what the user is to know.
    Raises `ResultsError` where there is a run in the folder and `resume` is not set, and `UsageError` where a site is
    given, because the batch system chooses the nodes.
    """
    if unused := Site(**site).options:
        raise UsageError(f"{', '.join(unused)}: not with --submit; options of the batch system follow after --")
    with keeping(folder):
        has_run = (folder / RUN_FILE).exists()
    if has_run and not resume:
        raise ResultsError(f"{folder} holds a run already; go on with it by --resume, or choose another with --out")
    command = (sys.executable, "-m", "parbench", *arguments, "--launcher", launcher.name)
    job = BatchJob(name=scenario, folder=folder, command=command, options=tuple(options))
    return launcher.submit(job, say, dry_run=dry_run)
