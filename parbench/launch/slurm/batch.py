"""A campaign as a batch job of SLURM: the script, `sbatch`, and what to do then."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from parbench.errors import LaunchError, UsageError
from parbench.launch.base import Job
from parbench.launch.slurm.commands import asked
from parbench.launch.trial_folder import write_new
from parbench.system.files import keeping, writing

SCRIPT = """#!/bin/bash
# Written by parbench: measures into this folder, and goes on there when it is submitted again.
exec {command}
"""


def submit(job: Job, say: Callable[[str], None]) -> str:
    """Writes the script, shows it, and submits it; the job's number. Raises `UsageError` where SLURM refuses it."""
    show(job, say)
    write_script(job)
    sbatch = sbatch_words(job)
    try:
        number = asked(*sbatch).strip().partition(";")[0]
    except LaunchError as error:
        raise UsageError(f"the job was not submitted: {error}") from None
    again, table = shlex.join(sbatch), shlex.join(["parbench", "table", str(job.folder)])
    say(f"Submitted as job {number}; see how it goes with: squeue --jobs={number}; tail -f {_log(job, number)}")
    say(f"The table, whenever you like: {table}; should the job end before it is through: {again}")
    return number


def show(job: Job, say: Callable[[str], None]) -> None:
    """Says what is to be submitted, and how."""
    say(script_of(job))
    say(f"$ {shlex.join(sbatch_words(job))}")


def script_of(job: Job) -> str:
    """The script; every word of its command is quoted."""
    return SCRIPT.format(command=shlex.join(job.command))


def write_script(job: Job) -> Path:
    """The script in the run's folder. Raises `ResultsError` where it cannot be written there."""
    path = job.folder / "job.sh"
    with keeping(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    with writing(job.folder):
        path.unlink(missing_ok=True)
        write_new(path, script_of(job).encode())
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
