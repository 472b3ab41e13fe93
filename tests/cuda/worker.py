"""Runs the matrix on fake CUDA devices, in one process: `python -m tests.cuda.worker SHIM OUT [PART OF A CELL]`.

Writes a line of JSON for each cell and rank: what came of it, and what it exchanged in a step.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def main(shim: Path, out: Path, only: str = "") -> None:
    """All cells of the matrix whose id has `only` in it, on a made-up machine with eight GPUs."""
    from tests.cuda.shim import load_shim

    load_shim(shim)
    import torch  # noqa: F401 - the shim comes first

    from tests.cuda.cells import CELLS, PLAN

    with out.open("w") as lines:
        for cell in CELLS.values():
            if only in cell.record.id:
                for rank in sorted({0, cell.layout.processes - 1}):
                    lines.write(json.dumps({"cell": cell.record.id, "rank": rank, **try_cell(PLAN, cell, rank)}) + "\n")
                    lines.flush()


def try_cell(plan: Any, cell: Any, rank: int) -> dict[str, Any]:
    """What came of two steps as that rank."""
    import pytest

    from tests.cuda.steps import take_steps

    with pytest.MonkeyPatch.context() as patch:
        try:
            return take_steps(plan, cell, rank, patch)
        except Exception as error:  # noqa: BLE001 - whatever a cell raises is its result
            return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *sys.argv[3:])
