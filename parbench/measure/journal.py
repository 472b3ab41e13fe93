"""A rank's record on disk."""

from pathlib import Path

from parbench.results.trial import RankRecord, Stage


class Journal:
    """This rank's record on disk, replaced whole at every change."""

    def __init__(self, folder: Path, record: RankRecord) -> None:
        self._path = folder / f"rank{record.rank}.json"
        self.record = record
        self.write()

    def write(self, **changes: object) -> None:
        """Puts `changes` into the record, and the record on disk."""
        self.record = self.record.model_copy(update=changes)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(self.record.model_dump_json())
        temporary.replace(self._path)

    def stage(self, stage: Stage) -> None:
        """Notes how far this rank has come."""
        self.write(stage=stage)
