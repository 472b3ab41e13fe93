"""A rank's record on disk, which is complete after every change, however the rank ends."""

from pathlib import Path

from parbench.records.account import trace_file
from parbench.records.trial import Milestone, RankRecord

EXIT_UNWRITTEN = 74
"""EX_IOERR of sysexits.h: a rank could not write its record or its log, so its trial is worth nothing."""


class JournalError(Exception):
    """The record cannot be written."""


class Journal:
    """This rank's record, in `rank<k>.json`. Every change replaces the file; raises `JournalError` where it cannot."""

    def __init__(self, folder: Path, record: RankRecord) -> None:
        self._path = folder / f"rank{record.rank}.json"
        self.trace_file = trace_file(folder, record.rank)
        self.record = record
        self.write()

    def write(self, **changes: object) -> None:
        """Changes fields of the record, and writes the whole record."""
        self.record = self.record.model_copy(update=changes)
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(self.record.model_dump_json())
            temporary.replace(self._path)
        except OSError as error:
            raise JournalError(str(error)) from error

    def enter(self, stage: Milestone) -> None:
        """Records that this rank has reached `stage`."""
        self.write(stage=stage)
