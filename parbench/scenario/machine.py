"""The file of a machine: YAML with comments, which `parbench doctor --save` writes and people may read and edit."""

import io
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from parbench.errors import ScenarioError
from parbench.records.machine import SCHEMA_VERSION, MachineRecord
from parbench.scenario.document import read_document
from parbench.scenario.sentences import explain
from parbench.system.files import write_whole, writing

WIDTH = 200
"""Columns: a point of a curve is one line."""

TITLE = """\
What this machine reached when parbench measured it: parbench doctor --save
Times are in seconds, sizes in bytes, rates and bandwidths in operations or bytes per second.
"""

COMMENTS = {
    "backend": "What carries the messages between ranks.",
    "device": "One of the devices. On CPU it is one physical core, and the memory is the machine's.\n"
    "matmul_flops: products of square matrices by precision; copy_bytes_per_s: bytes read and written by copies.",
    "curves": "Operations between ranks, one a device. size: of the whole tensor, where each rank has a part.\n"
    "seconds: the slowest rank's time of a call, the median of the samples; low_s and high_s: their 10th and 90th\n"
    "percentiles. Bandwidths as nccl-tests defines them (doc/PERFORMANCE.md there): algorithm_bandwidth is size ÷\n"
    "seconds; bus_bandwidth is that × 2 (n − 1)/n for all_reduce, × (n − 1)/n for all_gather, reduce_scatter and\n"
    "all_to_all, × 1 for p2p, in which each of n ranks sends to the next one and receives from the one before.\n"
    "fit: seconds = latency_s + bytes on the bus ÷ bus_bandwidth, by least squares of relative errors; residual is\n"
    "the root mean square of these.",
    "environment_digest": "Measurements of the same digest may be compared.",
}
"""What stands above these keys."""


def write_machine(record: MachineRecord, path: Path) -> None:
    """Writes the file whole or not at all. Raises `UnwrittenError`."""
    yaml = YAML()
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(_with_comments(record), text)
    with writing(path.parent):
        write_whole(path, text.getvalue().encode())


def read_machine(path: Path) -> MachineRecord:
    """The machine in a file. Raises `ScenarioError` with a sentence for each mistake: its file, line and field."""
    document = read_document(path, keys=("device", "curves"))
    version = document.data.get("schema_version")
    if version != SCHEMA_VERSION:
        problem = f"is {version!r}, and this parbench reads {SCHEMA_VERSION}: measure anew with parbench doctor --save"
        raise ScenarioError([document.mistake(("schema_version",), problem)])
    try:
        # As JSON, in which records are strict about numbers and take lists for tuples.
        return MachineRecord.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise ScenarioError([document.mistake(detail["loc"], explain(detail)) for detail in details]) from None


def _with_comments(record: MachineRecord) -> CommentedMap:
    content: CommentedMap = _as_yaml(record.model_dump(mode="json", exclude_none=True))
    content.yaml_set_start_comment(TITLE)
    for key, comment in COMMENTS.items():
        content.yaml_set_comment_before_after_key(key, before=f"\n{comment}")
    for curve in content["curves"]:
        for each in (*curve["points"], *([curve["fit"]] if "fit" in curve else [])):
            each.fa.set_flow_style()
    return content


def _as_yaml(value: Any) -> Any:
    """Plain data as ruamel.yaml's own types, which can have comments and styles."""
    if isinstance(value, dict):
        return CommentedMap({key: _as_yaml(each) for key, each in value.items()})
    if isinstance(value, list):
        return CommentedSeq(map(_as_yaml, value))
    return value
