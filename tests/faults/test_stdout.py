"""Faults of stdout, full, closed or read by one who leaves; and exit code 1, which nothing but a regression has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parbench.check import baselines
from parbench.results.store import Store
from tests.conftest import CommandLine
from tests.faults.scenarios import scenario
from tests.support.check_runs import CALM, run

PRINTING = (
    "list", "list runs", "list baselines", "schema", "doctor", "plan faults.yaml", "run faults.yaml --dry-run",
    "--help", "table first", "table first --format json", "table first --format parquet", "report first",
    "baseline list", "baseline show mine", "check slower --baseline mine",
)  # fmt: skip
BROKEN = """
from parbench.cli.main import cli, main

@cli.command()
def broken():
    raise {error}

main()
"""

DYING = """
import os, signal, sys, time

class Dying:
    def find_spec(name, *_):
        if name == "torch":
            time.sleep(3)  # until somebody waits for an answer
            HOW

if "PARBENCH_FAMILY" in os.environ:
    sys.meta_path.insert(0, Dying)
"""


@pytest.fixture
def stored(parbench_with_plugins: CommandLine) -> CommandLine:
    """A folder with a scenario, two made-up runs, and a baseline of the first, than which the second is slower."""
    results = parbench_with_plugins.folder / "results"
    for name, slower in (("first", 1), ("slower", 2)):
        times = [slower * each for each in CALM]
        made = run(name, ddp=times)
        with Store.locked(results / name) as store:
            store.begin(made.record)
            for trial in made.trials:
                store.append(trial)
    baselines.save(run("first"), "mine", results / "baselines")
    (parbench_with_plugins.folder / "faults.yaml").write_text(scenario("single"))
    return parbench_with_plugins


def code_without_reader(parbench: CommandLine, *arguments: str) -> int:
    """The exit code where stdout is a pipe that nobody reads; nothing may be said of that."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        parbench.command(*arguments),
        cwd=parbench.folder,
        env=parbench.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert ended.stderr == ""
    return ended.returncode


@pytest.mark.parametrize("command", [each for each in PRINTING if not each.startswith("check")])
def test_row_34_a_reader_that_leaves_is_no_error(stored: CommandLine, command: str) -> None:
    assert code_without_reader(stored, *command.split()) == 0


def test_row_34_a_reader_that_leaves_changes_no_verdict(stored: CommandLine) -> None:
    for form in ("text", "json"):
        assert code_without_reader(stored, "check", "slower", "--baseline", "mine", "--format", form) == 1
    assert stored("baseline", "save", "slower", "--name", "slow").returncode == 0
    assert code_without_reader(stored, "check", "first", "--baseline", "slow") == 0


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", PRINTING)
def test_row_36_stdout_that_is_full_or_closed(stored: CommandLine, command: str, redirection: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *stored.command(*command.split())]
    ended = subprocess.run(
        shell, cwd=stored.folder, env=stored.environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("the output cannot be written: ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    ["EOFError", "KeyboardInterrupt", "BrokenPipeError(32, 'x')", "SystemExit(1)", "SystemExit('x')", "click.Abort"],
)
def test_row_34_no_defect_has_the_exit_code_of_a_regression(error: str) -> None:
    program = "import click\n" + BROKEN.format(error=error)
    ended = subprocess.run(
        [sys.executable, "-c", program, "broken"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
    )
    assert ended.returncode == 70, ended.stderr
    assert error.partition("(")[0].rpartition(".")[2].encode() in ended.stderr


def test_row_34_nor_has_an_installation_that_is_broken(parbench: CommandLine) -> None:
    (parbench.folder / "click.py").write_text("raise RuntimeError('broken')")
    ended = parbench("list")
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (70, "RuntimeError: broken")


@pytest.mark.parametrize(
    "how", ["os.kill(os.getpid(), signal.SIGXCPU)", "raise DeprecationWarning", "raise MemoryError"]
)
def test_row_34_a_fork_server_that_dies_while_it_starts(stored: CommandLine, tmp_path: Path, how: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING.replace("HOW", how))
    stored.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), stored.environment["PYTHONPATH"]])
    for command in ("run faults.yaml --out out", "check faults.yaml --baseline mine"):
        ended = stored(*command.split())
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("the server that forks ranks ended while it imported torch")


def test_row_34_warnings_that_are_errors(stored: CommandLine) -> None:
    """Some editions of torch warn while they are imported, which then ends the fork server; others do not."""
    stored.environment["PYTHONWARNINGS"] = "error"
    assert stored("run", "faults.yaml", "--out", "out").returncode in (0, 2)
