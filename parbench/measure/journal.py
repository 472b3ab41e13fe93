"""What a rank has to say, on disk."""

from pathlib import Path

from parbench.records.trial import RankRecord, Stage

EXIT_UNWRITTEN = 74
"""As in sysexits.h: a rank could not write its record or its log, so nothing can be made of the trial."""


class JournalError(Exception):
    """The record cannot be written."""


class Journal:
    """This rank's record on disk, replaced whole at every change. Raises `JournalError` where it cannot be."""

    def __init__(self, folder: Path, record: RankRecord) -> None:
        self._path = folder / f"rank{record.rank}.json"
        self.record = record
        self.write()

    def write(self, **changes: object) -> None:
        """Puts `changes` into the record, and the record on disk."""
        self.record = self.record.model_copy(update=changes)
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(self.record.model_dump_json())
            temporary.replace(self._path)
        except OSError as error:
            raise JournalError(str(error)) from error

    def stage(self, stage: Stage) -> None:
        """Notes how far this rank has come."""
        self.write(stage=stage)
