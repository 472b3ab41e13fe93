"""A task of a SLURM step: a rank of a trial, forked from a process that stays to tell how it ended.

The end of its input, even by `kill -9` of the launcher, ends the rank, and so does SLURM's SIGTERM.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from parbench.launch.cleanup_guard import end_marked
from parbench.launch.node import network_variables
from parbench.launch.rank_process import HOST, TERMINATION_GRACE_S, run_rank
from parbench.launch.slurm.messages import Channel, Ended, Meeting, Ready, own_address, parts
from parbench.launch.slurm.node_task import granted
from parbench.launch.trial_folder import log_end
from parbench.records.assignment import Assignment

WAKING = {signal.SIGCHLD, signal.SIGTERM}


OF_A_TASK = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")
"""Variables that tell a task from all others, and are passed on to whatever it starts."""


def main() -> None:
    """One rank of a trial: hears what to do, gets ready, meets the others, works, and tells how it ended."""
    channel = Channel()

    import parbench.measure.preload  # noqa: F401 - imports only, as in the local launcher's server

    rank = int(os.environ["SLURM_PROCID"])
    assignment = on_this_node(Assignment.model_validate_json(sys.stdin.buffer.readline()))
    listener = None if rank else _listener()
    port = listener.getsockname()[1] if listener else None
    channel.tell(Ready(rank=rank, node=os.environ["SLURMD_NODENAME"], step=os.environ["SLURM_STEP_ID"], port=port))
    meeting = sys.stdin.buffer.readline()
    if not meeting:  # the others did not get ready
        return
    variables = torchrun_variables(os.environ, Meeting.model_validate_json(meeting))
    with tempfile.TemporaryDirectory(prefix="parbench-") as name:
        folder = Path(name)
        (folder / "cell.json").write_text(assignment.model_dump_json())
        end = _live(rank, folder, variables, listener, channel)
        record = folder / f"rank{rank}.json"
        channel.tell(
            *(parts(rank, "json", record.read_bytes()) if record.is_file() else ()),
            *parts(rank, "log", log_end(folder, rank).encode()),
            end,
        )


def on_this_node(assignment: Assignment) -> Assignment:
    """The assignment with this node's own cores: SLURM may have granted others than on the first."""
    return assignment.model_copy(update={"cores": granted().shares(len(assignment.cores), assignment.threads)})


def torchrun_variables(slurm: Mapping[str, str], meeting: Meeting) -> dict[str, str]:
    """What torchrun would tell this rank, from what SLURM tells its task."""
    node = int(slurm["SLURM_NODEID"])
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": str(tasks_per_node(slurm["SLURM_STEP_TASKS_PER_NODE"])[node]),
        "GROUP_RANK": str(node),
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        "PARBENCH_LISTENER": "1",
        **{name: slurm.get(name, value) for name, value in network_variables(own_address(meeting)).items()},
    }


def tasks_per_node(text: str) -> list[int]:
    """SLURM's short way to write equal numbers: `2(x3),1` is 2, 2, 2, 1."""
    numbers: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        numbers += [int(number)] * int(times.rstrip(")") or 1)
    return numbers


def _listener() -> socket.socket:
    """Where the ranks will meet, on a port that the kernel chooses; other hosts can reach it only if they need to."""
    tasks, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ["SLURM_STEP_NUM_NODES"])
    return socket.create_server((HOST if nodes == 1 else "", 0), backlog=tasks)


def _live(
    rank: int, folder: Path, variables: Mapping[str, str], listener: socket.socket | None, channel: Channel
) -> Ended:
    """Runs the rank to its end, or ends it once this task is told to."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)
    task, child = os.getpid(), os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKING)
            channel.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
            run_rank(folder, variables, listener, task)
        finally:
            os._exit(1)
    if listener:
        listener.close()
    input_ended = threading.Event()
    threading.Thread(target=_end_with_input, args=(input_ended,), daemon=True).start()
    told_to_end = False
    while not told_to_end and not _has_ended(child):
        told_to_end = signal.sigwait(WAKING) == signal.SIGTERM
    if told_to_end:
        _signal(child, signal.SIGABRT)  # its stacks come into its log
        signal.sigtimedwait({signal.SIGCHLD}, TERMINATION_GRACE_S)
    # It is not reaped yet, so its number cannot be another's: whatever it started ends with it.
    _signal(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    end_marked({f"{name}={os.environ[name]}" for name in OF_A_TASK}, spared={task})
    code = None if told_to_end else os.waitstatus_to_exitcode(status)
    return Ended(rank=rank, exit_code=code, interrupted=told_to_end and not input_ended.is_set())


def _has_ended(child: int) -> bool:
    """A child that was only stopped makes itself heard as well."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _signal(child: int, number: signal.Signals) -> None:
    try:
        os.killpg(child, number)
    except ProcessLookupError:  # too young to have its session
        os.kill(child, number)


def _end_with_input(input_ended: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    input_ended.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
    os._exit(0)  # what a rank does as well: all is told, and taking torch apart takes a while
