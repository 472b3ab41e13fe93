"""Signals, in a process of their own."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from parbench.system.signals import Interrupted, interruptible, uninterrupted
try:
    with interruptible():
        with uninterrupted():
            os.kill(os.getpid(), {first})
            print("written whole", flush=True)
            {second}
        print("never comes")
except Interrupted as stop:
    print(stop, stop.exit_code)
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


def program(first: int, second: str = "") -> subprocess.CompletedProcess[str]:
    text = PROGRAM.format(first=int(first), second=second)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_what_is_written_is_whole(number: signal.Signals) -> None:
    ended = program(number)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"written whole\nInterrupted by {number.name} {128 + number}\nTrue\n"


def test_a_second_signal_does_not_wait() -> None:
    ended = program(signal.SIGINT, "os.kill(os.getpid(), signal.SIGTERM)")
    assert (ended.returncode, ended.stdout) == (143, "written whole\n")


def test_what_is_ignored_stays_ignored() -> None:
    text = (
        "import os, signal\nfrom parbench.system.signals import interruptible\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('goes on')"
    )
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert ended.stdout == "goes on\n", ended.stderr
