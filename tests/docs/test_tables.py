"""The figures of the README and the pages are those of the stored runs."""

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES
from tests.docs.tables import MARKED, TABLES, with_tables, write


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_made_from_the_stored_runs(page: Path) -> None:
    text = page.read_text()
    assert text == with_tables(text), "make tables writes them anew"


def test_every_table_stands_on_a_page() -> None:
    marked = [match["name"] for page in PAGES for match in MARKED.finditer(page.read_text())]
    assert sorted(marked) == sorted(TABLES)


def test_an_edited_figure_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "headline", lambda: write([{"speed": 2}], ("speed", lambda row: f"{row['speed']}×")))
    page = "<!-- made from stored runs: headline -->\n\n| speed |\n| --- |\n| 3× |\n\nText.\n"
    assert with_tables(page) == page.replace("3×", "2×")
