"""A campaign as a batch job of SLURM: writes its script and calls `sbatch`."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from parbench.errors import LaunchError, UsageError
from parbench.launch.base import BatchJob
from parbench.launch.slurm.commands import call
from parbench.launch.trial_folder import write_new
from parbench.system.files import keeping, writing

SCRIPT = """#!/bin/bash
# Written by parbench: it measures into this folder, and resumes there if it is submitted again.
exec {command}
"""


def submit(job: BatchJob, say: Callable[[str], None]) -> str:
    """Writes, prints and submits the script. Returns the job's number. Raises `UsageError` if SLURM refuses it."""
    show(job, say)
    write_script(job)
    sbatch = sbatch_command(job)
    try:
        number = call(*sbatch).strip().partition(";")[0]
    except LaunchError as error:
        raise UsageError(f"the job was not submitted: {error}") from None
    again, table = shlex.join(sbatch), shlex.join(["parbench", "table", str(job.folder)])
    say(f"Submitted as job {number}; follow it with: squeue --jobs={number}; tail -f {_log(job, number)}")
    say(f"Show the table at any time: {table}; if the job ends early, resume it with: {again}")
    return number


def show(job: BatchJob, say: Callable[[str], None]) -> None:
    """Prints the script and the command that submits it."""
    say(script_text(job))
    say(f"$ {shlex.join(sbatch_command(job))}")


def script_text(job: BatchJob) -> str:
    """The text of the script; every word of its command is quoted."""
    return SCRIPT.format(command=shlex.join(job.command))


def write_script(job: BatchJob) -> Path:
    """Writes the script into the run's folder. Raises `ResultsError` if it cannot."""
    path = job.folder / "job.sh"
    with keeping(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    with writing(job.folder):
        path.unlink(missing_ok=True)
        write_new(path, script_text(job).encode())
        path.chmod(0o755)
    return path


def sbatch_command(job: BatchJob) -> list[str]:
    """The command that submits the script. The user's options come last and so override these."""
    ours = [
        f"--job-name=parbench-{re.sub(r'[^A-Za-z0-9_-]', '-', job.name)[:40]}",
        f"--output={str(job.folder).replace('%', '%%')}/slurm-%j.log",
        "--open-mode=append",
        "--requeue",  # after a preemption the job starts again and resumes
    ]
    return ["sbatch", "--parsable", *ours, *job.options, str(job.folder / "job.sh")]


def _log(job: BatchJob, number: str) -> str:
    return shlex.quote(str(job.folder / f"slurm-{number}.log"))
