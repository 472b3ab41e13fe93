"""Markdown, for a pull request or `$GITHUB_STEP_SUMMARY`."""

import re

from parbench.export.base import Document, Format
from parbench.text import plain


class Markdown(Format):
    """The rows as a GitHub table, below their title and above a list of the sentences, where there are any."""

    name = "markdown"
    needs = "rows"

    def write(self, document: Document) -> str:
        """Names are only text in it: none is a link, an image or HTML."""
        title = f"### {inert(document.title)}\n\n" if document.title else ""
        header = f"| {' | '.join(document.header)} |\n|{' --- |' * len(document.header)}\n"
        rows = "".join(f"| {' | '.join(map(inert, row))} |\n" for row in document.rows)
        sentences = "".join(f"- {inert(sentence)}\n" for sentence in document.sentences)
        return title + header + rows + (f"\n{sentences}" if sentences else "")


def inert(text: str) -> str:
    """Text that is only text in a GitHub table."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", plain(text))
