"""The file of a machine: what is written is read again, and what is wrong in it is told with its place."""

import re
from pathlib import Path

import pytest

from parbench.errors import ScenarioError, UnwrittenError
from parbench.records.machine import CurveRecord, DeviceRecord, FitRecord, MachineRecord, PointRecord
from parbench.scenario.machine import read_machine, write_machine
from parbench.system.environment import capture

POINT = PointRecord(
    size=1024,
    seconds=0.00011,
    low_s=1e-05,
    high_s=0.00012,
    samples=15,
    algorithm_bandwidth=9.309e6,
    bus_bandwidth=9.309e6,
)
MACHINE = MachineRecord(
    measured_at="2026-01-01T00:00:00+00:00",
    parbench="0.1.0",
    backend="gloo",
    device=DeviceRecord(
        kind="cpu",
        name="CPU: 2 × \x1b[31mred",
        count=2,
        memory_gib=16,
        matmul_flops={"fp32": 6.1e10},
        copy_bytes_per_s=9.8e9,
        unavailable={"tf32": "tf32 is a format of NVIDIA GPUs; on CPU use fp32 or bf16"},
    ),
    curves=(
        CurveRecord(
            operation="all_reduce",
            ranks=2,
            points=(POINT, POINT.model_copy(update={"size": 4096})),
            fit=FitRecord(latency_s=0.0001, bus_bandwidth=8e8, residual=0.04),
            left_out="from 16,384 bytes on it did not fit into the time",
        ),
        CurveRecord(operation="all_to_all", ranks=2, unavailable="RuntimeError: not here"),
    ),
    environment_digest="0123456789abcdef",
    environment={"speed": {"cpu_model": None, "variables": {"LANG": "no"}, "accelerators": []}},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "machine.yaml"
    write_machine(MACHINE, path)
    return path


def line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), start=1) if text in line)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def problem(file: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        read_machine(file)
    return str(caught.value)


def test_what_is_written_is_read_again(file: Path) -> None:
    assert read_machine(file) == MACHINE


def test_this_machines_own_environment_is_read_again(tmp_path: Path) -> None:
    environment = capture().model_dump(mode="json")
    write_machine(MACHINE.model_copy(update={"environment": environment}), tmp_path / "machine.yaml")
    assert read_machine(tmp_path / "machine.yaml").environment == environment


def test_people_are_told_what_the_numbers_mean_and_a_point_is_a_line(file: Path) -> None:
    text = file.read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0].startswith("# What this machine reached")
    for word in ("seconds", "matmul_flops", "bus_bandwidth", "nccl-tests", "residual"):
        assert any(word in line for line in comments)
    assert re.search(r"^ +- \{size: 1024, .*bus_bandwidth: [^,]*\}$", text, re.MULTILINE)
    assert "\x1b" not in text


def test_a_curve_is_found_by_its_operation_and_its_ranks() -> None:
    assert MACHINE.curve("all_reduce", 2) == MACHINE.curves[0]
    assert MACHINE.curve("all_reduce", 4) is None
    assert MACHINE.curve("all_to_all", 2) is None, "there is none"


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("ranks: 2", "ranks: two", "curves.0.ranks", "must be integer; got 'two'"),
        ("kind: cpu", "kind: tpu", "device.kind", "must be 'cpu' or 'cuda'; got 'tpu'"),
        ("fp32: 61000000000.0", "fp32: .nan", "device.matmul_flops.fp32", "must be a finite number; got nan"),
        ("operation: all_to_all", "operation: gossip", "curves.1.operation", "must be 'all_reduce', "),
        ("schema_version: 1", "schema_version: 2", "schema_version", "is 2, and this parbench reads 1: measure anew"),
    ],
)
def test_a_mistake_has_its_file_its_line_and_its_field(file: Path, old: str, new: str, path: str, message: str) -> None:
    replace(file, old, new)
    assert problem(file).startswith(f"{file}:{line_of(file, new)}: {path}: {message}")


def test_a_field_that_is_missing_is_named(file: Path) -> None:
    replace(file, "size: 4096, ", "")
    assert problem(file) == f"{file}:{line_of(file, '- {seconds')}: curves.0.points.1.size: is required"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", ":1: is empty; it needs at least device and curves"),
        ("- 1\n", ":1: must be a mapping with keys such as device and curves"),
        ("device: !!python/object:os.system x\n", ":1: device: the type "),
        ("device: [\n", "is not YAML"),
        ("device: {kind: cpu, count: 1}\n", "schema_version: is None, and this parbench reads 1"),
    ],
)
def test_another_file_is_told_from_a_machines(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content)
    assert str(path) in problem(path)
    assert message in problem(path)


def test_fields_of_tomorrow_are_left_out(file: Path) -> None:
    replace(file, "backend: gloo", "backend: gloo\ncolour: red")
    assert read_machine(file) == MACHINE


def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnwrittenError, match=r"results cannot be written to .*nowhere: No such file"):
        write_machine(MACHINE, tmp_path / "nowhere" / "machine.yaml")
