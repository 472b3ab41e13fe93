"""A campaign as a batch job of SLURM: the script, `sbatch`, and what to do then."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from parbench.errors import LaunchError, UsageError
from parbench.launch.base import Job
from parbench.launch.slurm_commands import asked

SCRIPT = """#!/bin/bash
# Written by parbench: measures into this folder, and goes on there when it is submitted again.
exec {command}
"""


def submit(job: Job, say: Callable[[str], None]) -> str:
    """Writes the script, shows it, and submits it; the job's number. Raises `UsageError` where SLURM refuses it."""
    script, sbatch = write_script(job), sbatch_words(job)
    say(script.read_text())
    say(f"$ {shlex.join(sbatch)}")
    try:
        number = asked(*sbatch).strip().partition(";")[0]
    except LaunchError as error:
        raise UsageError(f"the job was not submitted: {error}") from None
    again, table = shlex.join(sbatch), shlex.join(["parbench", "table", str(job.folder)])
    say(f"Submitted as job {number}; see how it goes with: squeue --jobs={number}; tail -f {_log(job, number)}")
    say(f"The table, whenever you like: {table}; should the job end before it is through: {again}")
    return number


def write_script(job: Job) -> Path:
    """The script in the run's folder; every word of its command is quoted."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / "job.sh"
    path.write_text(SCRIPT.format(command=shlex.join(job.command)))
    path.chmod(0o755)
    return path


def sbatch_words(job: Job) -> list[str]:
    """The command that submits it. What the user asks for comes last, and so overrides what is set here."""
    ours = [
        f"--job-name=parbench-{re.sub(r'[^A-Za-z0-9_-]', '-', job.name)[:40]}",
        f"--output={str(job.folder).replace('%', '%%')}/slurm-%j.log",
        "--open-mode=append",
        "--requeue",  # after a preemption it goes on where it was
    ]
    return ["sbatch", "--parsable", *ours, *job.options, str(job.folder / "job.sh")]


def _log(job: Job, number: str) -> str:
    return shlex.quote(str(job.folder / f"slurm-{number}.log"))
