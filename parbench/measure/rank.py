"""A rank of a launch, whatever it does there: its record, its errors and its exit code."""

import faulthandler
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

from parbench.measure.failures import make_failure
from parbench.measure.journal import EXIT_UNWRITTEN, Journal, JournalError
from parbench.records.trial import RankRecord


def run_as_rank(folder: Path, body: Callable[[Journal], None]) -> int:
    """Runs `body` as the rank that torchrun's environment variables name, with the journal of its record in `folder`.

    The exit code: 0 fine, 1 failed, `EXIT_UNWRITTEN` where the record or the log cannot be written.
    """
    try:
        return _run(folder, body)
    except (JournalError, OSError):  # an OSError of the log: every other error is in the record
        return EXIT_UNWRITTEN


def _run(folder: Path, body: Callable[[Journal], None]) -> int:
    faulthandler.enable()
    rank = int(os.environ["RANK"])
    local_rank, node = int(os.environ["LOCAL_RANK"]), int(os.environ.get("GROUP_RANK", "0"))
    record = RankRecord(rank=rank, host=socket.gethostname(), node=node, local_rank=local_rank, pid=os.getpid())
    journal = Journal(folder, record)
    try:
        body(journal)
    except JournalError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a strategy raises, even SystemExit, is what came of it
        traceback.print_exc()
        journal.write(failure=make_failure(error))
        return 1
    return 0
