"""Calls SLURM's own programs."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from parbench.errors import LaunchError, UsageError
from parbench.launch.secret import VARIABLE

PATIENCE_S = 30.0
SLOWEST_COPY = 1e6
"""Bytes per second; a slower copy to a node is given up."""
# A step gets all resources of the job on its nodes; parbench itself pins ranks, selects their GPUs and ends them.
# --overlap: the next step starts while SLURM may still be cleaning up the last one.
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
# Options of sbatch and salloc become defaults for srun in these variables; the size of a step depends on its cell.
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


def find_program(name: str) -> str:
    """The path of one of SLURM's programs. Raises `UsageError` where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise UsageError(
            f"launcher slurm needs {name}, which is not on PATH; load SLURM's module, or use another launcher"
        )
    return path


def step_command(nodes: Sequence[str], tasks: int, task: Sequence[str]) -> list[str]:
    """The command that runs `task` with srun: `tasks` times in all, equally often on each of `nodes`."""
    size = [f"--nodes={len(nodes)}", f"--ntasks={tasks}", f"--ntasks-per-node={tasks // len(nodes)}"]
    return [find_program("srun"), *size, f"--nodelist={','.join(nodes)}", *STEP_OPTIONS, *task]


def step_environment() -> dict[str, str]:
    """This process's environment, without variables that would change a step's size, and without the nodes' secret."""
    return {name: value for name, value in os.environ.items() if not name.startswith((*STEP_DEFAULTS, VARIABLE))}


def call(name: str, *arguments: str) -> str:
    """The output of one of SLURM's programs. Raises `LaunchError` with its error message."""
    try:
        ended = subprocess.run(  # noqa: S603 - a list of arguments, and no shell
            [find_program(name), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{name} did not answer within {PATIENCE_S:g} s") from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise LaunchError(f"{name} failed: {lines[-1] if lines else f'exit code {ended.returncode}'}")
    return ended.stdout


def job_state(job: str) -> str:
    """The state of a job in SLURM's words, such as RUNNING; OVER if SLURM has forgotten it, UNKNOWN without SLURM."""
    try:
        return call("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip() or "OVER"
    except LaunchError as error:
        return "OVER" if "Invalid job id" in str(error) else "UNKNOWN"


def node_names(compressed: str) -> list[str]:
    """The names of nodes in SLURM's compressed list, such as n[1-2]."""
    return call("scontrol", "show", "hostnames", compressed).split()


def node_address(node: str) -> str:
    """The address at which other nodes of the cluster reach a node."""
    words = call("scontrol", "--oneliner", "show", "node", node).split()
    return next((word.partition("=")[2] for word in words if word.startswith("NodeAddr=")), node)


def copy_to_node(path: Path, node: str) -> None:
    """Copies a file to the same path on a node. Raises `LaunchError`."""
    # Under another name until it is complete: if srun is killed, the input just ends early. The shell gets path and
    # size as arguments, never as part of its script.
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
