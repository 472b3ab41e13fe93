"""A campaign for later: handed to a batch system, which runs the same command where it has room."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from parbench.errors import ResultsError, UsageError
from parbench.launch.base import BatchJob, Launcher, Site
from parbench.results.store import RUN_FILE
from parbench.system.files import keeping


def submit_campaign(
    kind: type[Launcher],
    scenario: str,
    folder: Path,
    words: Sequence[str],
    options: Sequence[str],
    *,
    site: Mapping[str, Any],
    resume: bool,
    dry_run: bool,
) -> None:
    """Hands over the campaign that `parbench WORDS` runs in `folder`, and prints what the batch system calls it.

    The words resume, so that the job can be started again. Raises `ResultsError` where there is a run in the folder
    that nobody asked to go on with, `UsageError` where a site is given: the batch system chooses that.
    """
    if unused := Site(**site).options:
        raise UsageError(f"{', '.join(unused)}: not with --submit; options of the batch system follow after --")
    with keeping(folder):
        there = (folder / RUN_FILE).exists()
    if there and not resume:
        raise ResultsError(f"{folder} holds a run already; go on with it by --resume, or choose another with --out")
    command = (sys.executable, "-m", "parbench", *words, "--launcher", kind.name)
    job = BatchJob(name=scenario, folder=folder, command=command, options=tuple(options))
    number = kind.submit(job, lambda text: click.echo(text, err=True), dry_run=dry_run)
    if number is not None:
        click.echo(number)
