"""The pages build without a warning, load nothing from a network, and link to what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import FENCE, MARKS, PAGES, REPOSITORY, Block, blocks

LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]+src="https?:|<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+https?:'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def test_no_page_loads_anything_from_a_network(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) > 10
    assert not [page.name for page in pages if LOADED.search(page.read_text())]


def test_files_beside_docs_that_pages_link_to_are_in_the_site(site: Path) -> None:
    assert (site / "scenarios/lstm_scaling.yaml").read_bytes() == (
        REPOSITORY / "scenarios/lstm_scaling.yaml"
    ).read_bytes()
    assert (site / "report/example/index.html").exists()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_within_the_repository_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (REPOSITORY / name).read_text())
    assert links
    assert not [link for link in links if not (REPOSITORY / link).exists()]


def test_the_readme_is_one_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 140


def test_every_block_is_one_that_some_test_checks() -> None:
    assert {block.language for block in blocks()} <= {"python", "yaml", "sh", "toml"}
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(FENCE.findall(page.read_text())), f"{page.name} has a block that no test reads"


@pytest.mark.parametrize("block", [block for block in blocks() if block.mark], ids=str)
def test_marks_of_blocks_are_known(block: Block) -> None:
    assert block.mark in MARKS
