"""Clusters: those that come with parbench name their sources, mistakes are told all at once, measured ones are read."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from parbench.errors import ScenarioError
from parbench.predict.clusters import Cluster, cluster_schema, find_cluster, read_cluster, shipped_names
from parbench.records.machine import CurveRecord
from parbench.scenario.machine import write_machine
from tests.scenario.test_machine import MACHINE

GOOD = """\
name: two
devices_per_node: 2
device:
  name: thing
  memory_gib: 10
  memory_bandwidth: 1e12
  matmul_flops: {bf16: 1e14}
links:
  node: {bandwidth: 1e11}
  network: {bandwidth: 1e10}
"""
FIGURES = ("memory_gib", "memory_bandwidth", "matmul_flops", "peak_flops", "multiprocessors", "power_w")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("name", shipped_names())
def test_every_figure_of_a_shipped_cluster_names_its_source(name: str):
    cluster = find_cluster(name)
    assert cluster.name == name
    assert {f"device.{figure}" for figure in FIGURES} | {"links.node", "links.network"} <= set(cluster.sources)
    assert all(cluster.device.matmul_flops[each] <= peak for each, peak in cluster.device.peak_flops.items())


def test_the_clusters_that_were_asked_for_are_there():
    wanted = {"dgx-v100", "dgx-a100-40", "dgx-a100-80", "dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72"}
    assert wanted <= set(shipped_names())


def test_a_file_is_a_cluster(file: Path):
    cluster = read_cluster(file)
    assert (cluster.devices, cluster.device.memory_bytes) == (2, 10 * 2**30)
    assert cluster.device.power_share == 1


def test_all_mistakes_are_told_at_once_with_their_lines(file: Path):
    file.write_text(GOOD.replace("memory_gib: 10", "memory_gib: 0").replace("bandwidth: 1e10", "bandwith: 1e10"))
    with pytest.raises(ScenarioError) as caught:
        read_cluster(file)
    text = str(caught.value)
    assert f"{file}:5: device.memory_gib" in text
    assert "links.network.bandwidth: is required" in text
    assert "did you mean 'bandwidth'?" in text


def test_nothing_is_faster_than_its_peak(file: Path):
    file.write_text(
        GOOD.replace("  matmul_flops: {bf16: 1e14}", "  matmul_flops: {bf16: 1e14}\n  peak_flops: {bf16: 1e13}")
    )
    with pytest.raises(ScenarioError, match="cannot lie above what is possible"):
        read_cluster(file)


def test_an_unknown_name_is_told_with_a_close_one():
    with pytest.raises(ScenarioError, match="did you mean 'dgx-h100'"):
        find_cluster("dgx-h10")


def test_a_speed_that_is_missing_is_asked_for_by_name(file: Path):
    with pytest.raises(ScenarioError, match=r"device\.matmul_flops\.fp8: is needed .* only bf16"):
        read_cluster(file).speed("fp8")


def test_devices_fill_their_nodes():
    cluster = find_cluster("dgx-h100")
    assert (cluster.with_devices(4).nodes, cluster.with_devices(4).devices_per_node) == (1, 4)
    assert (cluster.with_devices(64).nodes, cluster.with_devices(64).devices_per_node) == (8, 8)
    with pytest.raises(ScenarioError, match="12 devices do not fill nodes of 8"):
        cluster.with_devices(12)


def test_a_measured_machine_is_a_cluster(tmp_path: Path):
    path = tmp_path / "machine.yaml"
    write_machine(MACHINE, path)
    cluster = read_cluster(path)
    assert cluster.device.kind == "cpu"
    assert cluster.links.node.bandwidth == 8e8
    assert cluster.links.node.latency_s == 1e-4
    assert cluster.device.memory_gib == 8  # two cores share it
    assert cluster.speed("fp32") == 6.1e10


def test_what_a_machine_did_not_measure_is_told(tmp_path: Path):
    path = tmp_path / "machine.yaml"
    silent = CurveRecord(operation="all_reduce", ranks=2, unavailable="not here")
    write_machine(MACHINE.model_copy(update={"curves": (silent,)}), path)
    with pytest.raises(ScenarioError, match="curves: was not measured"):
        read_cluster(path)


def test_the_schema_takes_the_shipped_clusters():
    import jsonschema

    for name in shipped_names():
        text = Path(f"parbench/predict/shipped/{name}.yaml")
        root = Path(__file__).parents[2]
        jsonschema.validate(YAML(typ="safe", pure=True).load((root / text).read_text()), cluster_schema())
    assert Cluster.model_fields.keys() == cluster_schema()["properties"].keys()
