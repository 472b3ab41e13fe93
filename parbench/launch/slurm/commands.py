"""SLURM's own programs, as parbench calls them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from parbench.errors import LaunchError, UsageError
from parbench.launch.secret import VARIABLE

PATIENCE_S = 30.0


SLOWEST_COPY = 1e6
"""Bytes a second."""


# A step takes all that the job has on its nodes; parbench pins ranks itself, chooses their GPUs and ends them. Steps
# follow one another so closely that SLURM may still be clearing away the last one: hence overlap.
STEP_OPTIONS = (
    "--overlap",
    "--overcommit",
    "--mem=0",
    "--cpu-bind=none",
    "--gpu-bind=none",
    "--distribution=block",
    "--kill-on-bad-exit=1",
    "--wait=0",
    "--mpi=none",
    "--export=ALL",
    "--job-name=parbench",
)


# What sbatch and salloc were told goes to srun as defaults for every step; a step is as large as its cell instead.
STEP_DEFAULTS = (
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_TASKS_PER_NODE",
    "SLURM_CPUS_PER_",
    "SLURM_THREADS_PER_CORE",
    "SLURM_GPUS",
    "SLURM_TRES_PER_TASK",
    "SLURM_MEM_PER_",
    "SLURM_CPU_BIND",
    "SLURM_GPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_HINT",
    "SLURM_EXACT",
    "SLURM_EXCLUSIVE",
    "SLURM_TIMELIMIT",
)


def program(name: str) -> str:
    """The path of one of SLURM's programs. Raises `UsageError` where it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"launcher slurm needs {name}, which is not on PATH here; load SLURM's module, or use another")
    return found


def step_command(nodes: Sequence[str], tasks: int, task: Sequence[str]) -> list[str]:
    """`srun` of equally many tasks on each of `nodes`."""
    size = [f"--nodes={len(nodes)}", f"--ntasks={tasks}", f"--ntasks-per-node={tasks // len(nodes)}"]
    return [program("srun"), *size, f"--nodelist={','.join(nodes)}", *STEP_OPTIONS, *task]


def step_environment() -> dict[str, str]:
    """This process's environment, less what would change the shape of a step, and the secret of nodes."""
    return {name: value for name, value in os.environ.items() if not name.startswith((*STEP_DEFAULTS, VARIABLE))}


def asked(name: str, *arguments: str) -> str:
    """What a program prints. Raises `LaunchError` with what it complains about."""
    try:
        ended = subprocess.run(  # noqa: S603 - a list of arguments, and no shell
            [program(name), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{name} did not answer within {PATIENCE_S:g} s") from None
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        raise LaunchError(f"{name} failed: {said[-1] if said else f'exit code {ended.returncode}'}")
    return ended.stdout


def job_state(job: str) -> str:
    """The state of a job in SLURM's words, such as RUNNING; a job that SLURM no longer knows is over."""
    try:
        return asked("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip() or "OVER"
    except LaunchError as error:
        return "OVER" if "Invalid job id" in str(error) else "UNKNOWN"


def node_names(compressed: str) -> list[str]:
    """The nodes of a list in SLURM's short way to write it, such as n[1-2]."""
    return asked("scontrol", "show", "hostnames", compressed).split()


def node_address(node: str) -> str:
    """Where the other nodes of the cluster reach a node."""
    words = asked("scontrol", "--oneliner", "show", "node", node).split()
    return next((word.partition("=")[2] for word in words if word.startswith("NodeAddr=")), node)


def copy_to_node(path: Path, node: str) -> None:
    """Puts a file where a node does not see it, at the same path. Raises `LaunchError`."""
    # Under another name until it is whole: where srun is killed, its input only ends. The shell gets path and size as
    # arguments, never as a part of its text.
    script = (
        'mkdir -p "$(dirname "$1")" && cat > "$1.$$" && test "$(wc -c < "$1.$$")" -eq "$2" && mv "$1.$$" "$1"'
        ' || { rm -f "$1.$$"; exit 1; }'
    )
    size = path.stat().st_size
    copy = step_command([node], 1, [f"--input={path}", "sh", "-c", script, "sh", str(path), str(size)])
    patience_s = PATIENCE_S + size / SLOWEST_COPY
    try:
        ended = subprocess.run(  # noqa: S603 - a list of arguments
            copy, env=step_environment(), capture_output=True, text=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{path} could not be copied to node {node} within {patience_s:.0f} s") from None
    if ended.returncode:
        raise LaunchError(f"{path} cannot be copied to node {node}: {ended.stderr.strip()}")
