"""Every YAML block is a scenario, or a part of one, that can be planned."""

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from parbench.cli.main import cli
from tests.docs.blocks import Block, blocks, files_of

BASE = {
    "workloads": {"w": {"model": {"kind": "lstm", "layers": 2, "d_model": 16}, "seq_len": 8, "global_batch": 8}},
    "strategies": ["single", "ddp", "hybrid"],
}
"""What a part of a scenario is completed with."""


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_scenarios_of_the_pages_can_be_planned(
    block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = YAML(typ="safe").load(block.text)
    if block.mark == "not a scenario":
        return
    if block.mark == "with":
        assert block.reason
        pytest.importorskip(block.reason)
    for name, text in files_of(block.page).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "books").mkdir()
    for book in (tmp_path / "book.txt", tmp_path / "books/one.txt"):
        book.write_text("It was the best of times, it was the worst of times. " * 2000)
    path = tmp_path / "scenario.yaml"
    path.write_text(block.text if "workloads" in content else _as_yaml({**BASE, **content}))

    assert cli.main(["plan", str(path)], prog_name="parbench", standalone_mode=False) in (0, None)
    assert "single" in capsys.readouterr().out


def _as_yaml(content: dict[str, object]) -> str:
    text = io.StringIO()
    YAML(typ="safe").dump(content, text)
    return text.getvalue()
