"""The fenced code blocks of the README and of the pages in docs/, each with what its page says about checking it.

An HTML comment before a block tells what a test cannot do with it, and why:

- `not run: REASON` or `not measured: REASON`: its commands are parsed; measurements are planned where they can be;
- `run: tiny`: its measurements are run for real, with settings that take seconds;
- `exits with: CODE`: what each of its commands ends with;
- `not a scenario: REASON`: YAML of another program;
- `with: PACKAGE`: needs an optional package;
- `run: WHAT`: a Python file that a test of this folder runs.

A block with a title, such as `title="first.yaml"`, is a file of that name for the commands of its page.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ELSEWHERE = ("new-figure.md",)
"""Pages whose blocks another test runs: tests/figures/test_new_figure.py carries out that worked example."""

PAGES = [
    REPOSITORY / "README.md",
    *(page for page in sorted((REPOSITORY / "docs").glob("*.md")) if page.name not in ELSEWHERE),
]
MARKS = ("not run", "not measured", "run", "exits with", "not a scenario", "with")
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<reason>[^\n]+) -->\n)?"
    r'^```(?P<language>[a-z]*)(?: title="(?P<title>[^"\n]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, title and text, and the mark before it with its reason."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    mark: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block, without comments."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(*languages: str) -> list[Block]:
    """All blocks in these languages, page by page."""
    return [block for page in PAGES for block in _blocks_of(page) if block.language in languages or not languages]


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(page, line, **{name: match[name] for name in ("language", "title", "text", "mark", "reason")})


def files_of(page: Path) -> dict[str, str]:
    """The files that a page has the reader save; blocks with the same title are parts of one file."""
    files: dict[str, str] = {}
    for block in _blocks_of(page):
        if block.title:
            files[block.title] = "\n\n".join(filter(None, [files.get(block.title), block.text]))
    return files
