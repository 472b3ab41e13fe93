"""What tests wait with: a helper that never failed would hide what it waits for."""

import subprocess
import sys
from itertools import count

import pytest

from tests.support.waiting import ending, wait_for


def test_what_comes_is_given():
    numbers = count()
    assert wait_for(lambda: next(numbers) > 1 and "it", "the third look") == "it"


def test_what_can_come_no_more_is_not_waited_for():
    with subprocess.Popen([sys.executable, "-c", "print('so'); exit(7)"], stdout=subprocess.PIPE, text=True) as process:
        process.wait()
        with pytest.raises(AssertionError, match=r"the sign never came: exit code 7, \['so\\n'\]"):
            wait_for(lambda: False, "the sign", ended=lambda: ending(process))


def test_what_came_at_the_end_has_come():
    assert wait_for(lambda: True, "the sign", ended=lambda: "it is over")


def test_nothing_is_waited_for_without_end():
    with pytest.raises(AssertionError, match=r"the sign did not come within 0\.1 s"):
        wait_for(lambda: False, "the sign", patience_s=0.1)


def test_who_runs_has_no_ending():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert ending(process) is None
