"""The local launcher where the system lets it down."""

from pathlib import Path

import psutil
import pytest

from parbench.launch.local.launcher import LocalLauncher
from parbench.system.signals import Interrupted


def test_a_rank_that_cannot_be_forked_fails_its_trial_and_the_next_one_runs(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    try:
        launcher._forks.ready()
        server = psutil.Process(launcher._forks.pid)
        _, most = server.rlimit(psutil.RLIMIT_NOFILE)
        server.rlimit(psutil.RLIMIT_NOFILE, (server.num_fds(), most))
        outcome = launcher.launch(tmp_path, processes=2, deadline_s=600)
        assert outcome.exit_codes == (None, None)
        assert str(outcome.reason).startswith("rank 0 could not be started: it could not be forked")
        again = launcher.launch(tmp_path, processes=1, deadline_s=600)  # of a folder without a cell
        assert (again.reason, again.exit_codes) == (None, (1,))
    finally:
        launcher.close()


def test_an_interruption_while_ranks_are_cleared_away_is_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = LocalLauncher()

    def interrupted() -> None:
        monkeypatch.undo()
        raise Interrupted(2)

    launcher._forks.ready()
    monkeypatch.setattr(launcher._forks, "sweep", interrupted)
    with pytest.raises(Interrupted):
        launcher.launch(tmp_path, processes=1, deadline_s=600)
    launcher.close()
    assert launcher._running == []
