"""Lets pages of docs/ link to files of the repository beside it, so that links work here and in the built site alike.

A page links to `../scenarios/smoke.yaml` as it would anywhere. MkDocs takes only what lies below docs/, so the files
that are linked, and the two Markdown files at the root and in tests/, join the site under their path in the repository.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "tests/README.md")
OUTSIDE = re.compile(r"\]\(\.\./(?P<path>[^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds every file outside docs/ that a page links to."""
    pages = [Path(file.abs_src_path).read_text() for file in files.documentation_pages() if file.abs_src_path]
    linked = {match["path"] for page in pages for match in OUTSIDE.finditer(page)}
    for path in sorted(linked | set(PAGES)):
        if (ROOT / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrites links for where these files lie in the site."""
    if page.file.src_uri in PAGES:
        return markdown.replace("](docs/", "](").replace("](../", "](")
    return markdown.replace("](../", "](")
