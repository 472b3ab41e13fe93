"""What nodes leave of a trial: where it is kept, and where not; and ranks whose parent is gone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parbench.errors import ResultsError
from parbench.launch.torchrun.messages import TrialReport
from parbench.launch.torchrun.parts import write_report
from parbench.launch.trial_folder import log_end, read_ranks
from tests.support.records import rank

ORPHAN = """
from pathlib import Path
from parbench.launch.rank_process import detach

detach(Path("log"), parent={parent})
print("it goes on")
"""


def report(log: str = "said") -> TrialReport:
    return TrialReport(run_id="r", exit_codes={1: 0}, ranks={1: rank(1), 7: rank(7)}, logs={1: log, 7: "not its own"})


def test_of_another_node_its_own_ranks_are_kept(tmp_path: Path) -> None:
    write_report(report(), tmp_path, range(1, 2))
    assert read_ranks(tmp_path, 9) == (rank(1),)
    assert log_end(tmp_path, 1) == "said"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank1.json", "rank1.log"]


@pytest.mark.parametrize("name", ["rank1.json", "rank1.log"])
def test_nothing_of_it_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / name).symlink_to("mine")
    with pytest.raises(ResultsError, match="results cannot be written to "):
        write_report(report(), tmp_path, range(1, 2))
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_full_disk_is_a_sentence(mount: Callable[..., Path]) -> None:
    folder = mount("small")
    with pytest.raises(ResultsError, match=r"results cannot be written to .*: No space left on device"):
        write_report(report("x" * 2**17), folder, range(1, 2))


def test_a_rank_whose_parent_ended_before_it_could_be_watched_ends_too(tmp_path: Path) -> None:
    orphan = [sys.executable, "-c", ORPHAN.format(parent=1)]
    ended = subprocess.run(orphan, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, (tmp_path / "log").exists()) == (1, "", False)
