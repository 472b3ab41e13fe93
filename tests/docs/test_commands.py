"""Every command of the README and the pages is one that parbench takes, and the quick ones are run."""

import importlib.util
import re
import shutil
from pathlib import Path

import click
import pytest

from parbench.cli.main import cli
from tests.conftest import CommandLine
from tests.docs.blocks import PAGES, REPOSITORY, Block, blocks, files_of

TINY = (
    "--rounds",
    "2",
    "--set",
    "measure.window_s=0.05",
    "--set",
    "measure.warmup=5",
    "--set",
    "measure.deadline_s=600",
)
ELSEWHERE = ("--nodes", "--submit", "--launcher")
"""Options of commands that need more than this machine."""

INLINE = re.compile(r"`parbench ([a-z][^`\n]*)`")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what the reader has: scenarios, stored runs, and the files that the page has them save."""
    shutil.copytree(REPOSITORY / "scenarios", tmp_path / "scenarios")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/stored").symlink_to(REPOSITORY / "results/stored")
    return tmp_path


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, and what is left of them."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        following = command.get_command(click.Context(command), name)
        assert following, f"there is no command {name}"
        command = following
    return command, rest


def parbench_words(words: list[str]) -> list[str] | None:
    """What follows `parbench` in a command, also where another program starts it; without what the shell redirects."""
    if "parbench" not in words:
        return None
    own = words[words.index("parbench") + 1 :]
    return own[: own.index(">")] if ">" in own else own


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_every_command_has_the_options_that_it_is_given(block: Block) -> None:
    for words in block.commands:
        if (own := parbench_words(words)) is not None:
            command, rest = command_of(own)
            command.make_context(command.name, rest)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        elif "-m" in words:
            assert importlib.util.find_spec(words[words.index("-m") + 1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_exist(page: Path) -> None:
    for text in INLINE.findall(page.read_text()):
        assert command_of(text.split())


@pytest.mark.parametrize("page", list(dict.fromkeys(block.page for block in blocks("sh"))), ids=lambda page: page.name)
def test_the_commands_of_a_page_work_one_after_another(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files_of(page).items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    for block in blocks("sh"):
        if block.page == page:
            for words in filter(None, map(parbench_words, block.commands)):
                run_command(block, words, CommandLine(folder))


def run_command(block: Block, words: list[str], apart: CommandLine) -> None:
    """Runs what is quick, measures what its page says can be tiny, and plans other measurements."""
    if block.mark in ("not run", "not measured"):
        if words[0] == "run" and not set(ELSEWHERE) & set(words):
            assert exit_code_of([*words, "--dry-run"]) == 0
    elif measures(words):
        assert (block.mark, block.reason) == ("run", "tiny"), f"{block} measures: say in a comment whether it is run"
        ended = apart(*words, *TINY)
        assert ended.returncode == 0, ended.stderr
    else:
        assert exit_code_of(words) == (int(block.reason or 0) if block.mark == "exits with" else 0), words


def measures(words: list[str]) -> bool:
    """Whether a command starts ranks."""
    return words[0] == "run" or (words[0] == "check" and any(word.endswith(".yaml") for word in words))


def exit_code_of(words: list[str]) -> int:
    """Carries out a command that starts no rank in this process: to import anew takes longer than most of them."""
    return int(cli.main(words, prog_name="parbench", standalone_mode=False) or 0)
