"""A task of a SLURM step that runs one rank of a trial: it forks the rank, and reports how the rank ended.

The end of the task's input ends the rank, also after `kill -9` of the launcher, and so does SLURM's SIGTERM.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from parbench.launch.cleanup_guard import kill_marked
from parbench.launch.node import network_variables
from parbench.launch.own_cores import with_own_cores
from parbench.launch.rank_process import LOOPBACK, TERMINATION_GRACE_S, run_rank
from parbench.launch.slurm.messages import Channel, Meeting, RankEnd, Ready, own_address, split_file
from parbench.launch.slurm.node_task import detect_allocation
from parbench.launch.trial_folder import log_end
from parbench.records.assignment import Assignment

WAKING = {signal.SIGCHLD, signal.SIGTERM}
TASK_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")
"""Variables that identify a task, and that its descendants inherit."""


def main() -> None:
    """Receives the assignment, waits for the other tasks, runs the rank, and sends its record, log and end."""
    channel = Channel()

    import parbench.measure.preload  # noqa: F401 - imports only, as in the fork server

    rank = int(os.environ["SLURM_PROCID"])
    assignment = localize(Assignment.model_validate_json(sys.stdin.buffer.readline()))
    listener = None if rank else _listener()
    port = listener.getsockname()[1] if listener else None
    channel.send(Ready(rank=rank, node=os.environ["SLURMD_NODENAME"], step=os.environ["SLURM_STEP_ID"], port=port))
    meeting = sys.stdin.buffer.readline()
    if not meeting:  # the launcher gave up waiting for the others
        return
    variables = torchrun_variables(os.environ, Meeting.model_validate_json(meeting))
    with tempfile.TemporaryDirectory(prefix="parbench-") as name:
        folder = Path(name)
        (folder / "cell.json").write_text(assignment.model_dump_json())
        end = _run(rank, folder, variables, listener, channel)
        record = folder / f"rank{rank}.json"
        channel.send(
            *(split_file(rank, "json", record.read_bytes()) if record.is_file() else ()),
            *split_file(rank, "log", log_end(folder, rank).encode()),
            end,
        )


def localize(assignment: Assignment) -> Assignment:
    """The assignment with the cores of this node, which may differ from those of the first node."""
    return with_own_cores(assignment, detect_allocation(), assignment.threads)


def torchrun_variables(slurm: Mapping[str, str], meeting: Meeting) -> dict[str, str]:
    """The variables that torchrun would set for this rank, from those that SLURM sets for its task."""
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
    """The numbers in SLURM's compressed list: `2(x3),1` is 2, 2, 2, 1."""
    numbers: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        numbers += [int(number)] * int(times.rstrip(")") or 1)
    return numbers


def _listener() -> socket.socket:
    """The socket where the ranks connect, on a free port; on loopback only if there is one node."""
    tasks, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ["SLURM_STEP_NUM_NODES"])
    return socket.create_server((LOOPBACK if nodes == 1 else "", 0), backlog=tasks)


def _run(
    rank: int, folder: Path, variables: Mapping[str, str], listener: socket.socket | None, channel: Channel
) -> RankEnd:
    """Runs the rank to its end, or ends it when this task gets SIGTERM or its input ends."""
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
    ordered = False
    while not ordered and not _has_ended(child):
        ordered = signal.sigwait(WAKING) == signal.SIGTERM
    if ordered:
        _signal(child, signal.SIGABRT)  # the rank writes its stacks into its log
        signal.sigtimedwait({signal.SIGCHLD}, TERMINATION_GRACE_S)
    # The rank is not reaped yet, so its process id is not reused: killing its group kills its children as well.
    _signal(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    kill_marked({f"{name}={os.environ[name]}" for name in TASK_VARIABLES}, exempt={task})
    code = None if ordered else os.waitstatus_to_exitcode(status)
    return RankEnd(rank=rank, exit_code=code, interrupted=ordered and not input_ended.is_set())


def _has_ended(child: int) -> bool:
    """Whether the child has ended; a stopped one sends SIGCHLD too."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _signal(child: int, number: signal.Signals) -> None:
    try:
        os.killpg(child, number)
    except ProcessLookupError:  # it has no session of its own yet
        os.kill(child, number)


def _end_with_input(input_ended: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    input_ended.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
    os._exit(0)  # as in `run_rank`: everything is sent, and a normal exit with torch takes a while
