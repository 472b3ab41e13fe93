"""A trial's folder: what an earlier launch compiled there is gone, and nothing else."""

from pathlib import Path

from parbench.launch.trial_folder import prepare_folder, remove_caches
from tests.support.records import assignment


def fill(folder: Path) -> Path:
    """A folder as a trial leaves it, with a link to a folder elsewhere that is named as if it were the trial's."""
    trial, elsewhere = folder / "trial", folder / "elsewhere"
    (trial / "rank0-compiled-abc" / "ab").mkdir(parents=True)
    (trial / "rank0-compiled-abc" / "ab" / "code.so").write_text("code")
    for name in ("rank0.json", "rank0.log", "note"):
        (trial / name).write_text("")
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    (trial / "rank1-compiled-abc").symlink_to(elsewhere)
    return trial


def test_what_was_compiled_is_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    trial = fill(tmp_path)
    remove_caches(trial)
    assert {path.name for path in trial.iterdir()} == {"rank0.json", "rank0.log", "note", "rank1-compiled-abc"}
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_folder_is_prepared_for_ranks_that_find_nothing(tmp_path: Path) -> None:
    trial = fill(tmp_path)
    prepare_folder(trial, assignment())
    assert {path.name for path in trial.iterdir()} == {"cell.json", "note"}
    assert (tmp_path / "elsewhere" / "precious").exists()
