"""Which CPUs lie beside a GPU, from a made-up sysfs, and how ranks divide them."""

from itertools import chain
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.system import devices, gpu_cpus
from parbench.system.devices import Machine
from parbench.system.gpu_cpus import cpus_beside, divide_cores


def unsupported(*_):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def pci(tmp_path, monkeypatch):
    """Puts GPUs, which are numbers here, into the buses of a made-up machine: a list of CPUs for each PCI device."""
    monkeypatch.setattr(gpu_cpus, "PCI_DEVICES", tmp_path)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", unsupported)

    def put(*places: tuple[tuple[int, int, int], str, str | None]) -> None:
        answers = [SimpleNamespace(domain=domain, bus=bus, device=device) for (domain, bus, device), _, _ in places]
        monkeypatch.setattr(pynvml, "nvmlDeviceGetPciInfo", lambda gpu: answers[gpu])
        for _, folder, text in places:
            (tmp_path / folder).mkdir()
            if text is not None:
                (tmp_path / folder / "local_cpulist").write_text(text)

    return put


def test_the_kernel_names_pci_devices_in_hexadecimal_digits_and_domains_in_four_or_more(pci):
    pci(
        ((0, 0x3B, 0), "0000:3b:00.0", "0-1,4\n"),
        ((0, 0xAF, 0x1F), "0000:af:1f.0", "2-3,5\n"),
        ((0x10001, 1, 0), "10001:01:00.0", "7\n"),
    )
    assert [cpus_beside(pynvml, gpu) for gpu in range(3)] == [{0, 1, 4}, {2, 3, 5}, {7}]


@pytest.mark.parametrize("text", [None, "", "\n", "what\n"])
def test_what_the_kernel_does_not_tell_is_not_known(pci, text):
    pci(((0, 0, 0), "0000:00:00.0", text))
    assert cpus_beside(pynvml, 0) == frozenset()


def test_without_an_answer_of_nvml_nothing_is_known(pci, monkeypatch):
    pci(((0, 0, 0), "0000:00:00.0", "0"))
    assert cpus_beside(pynvml, None) == frozenset()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPciInfo", unsupported)
    assert cpus_beside(pynvml, 0) == frozenset()


def test_a_slice_lies_where_its_gpu_lies(pci, monkeypatch):
    pci(((0, 0, 0), "0000:00:00.0", "0"), ((0, 1, 0), "0000:01:00.0", "1"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", lambda _: 1)
    assert cpus_beside(pynvml, "slice") == {1}


def test_a_machine_knows_what_lies_beside_each_visible_gpu_in_cudas_order(pci, monkeypatch):
    pci(((0, 1, 0), "0000:01:00.0", "0-1"), ((0, 2, 0), "0000:02:00.0", "2-3"))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda gpu: f"GPU-{gpu}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: int(uuid.removeprefix("GPU-")))
    monkeypatch.setattr(devices, "torch_build", lambda: ("2.13.0", "12.8"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert devices.detect().gpu_cpus == ((2, 3), (0, 1))


NODES = (((0, 8), (1, 9), (2, 10), (3, 11)), ((4, 12), (5, 13), (6, 14), (7, 15)))
"""Two NUMA nodes of four cores each, with two logical CPUs a core."""


def numa_machine(*places: int) -> Machine:
    """A machine of two nodes; `places` are the nodes of its GPUs."""
    near = tuple(tuple(sorted(chain.from_iterable(NODES[place]))) for place in places)
    return Machine(cores=NODES[0] + NODES[1], gpus=len(places), gpu_cpus=near)


def test_ranks_beside_the_same_cores_divide_them():
    four = numa_machine(0, 0, 1, 1).cores_of_gpu_ranks(4, 4)
    assert four == (NODES[0][:2], NODES[0][2:], NODES[1][:2], NODES[1][2:])
    assert numa_machine(0, 0, 1, 1).cores_of_gpu_ranks(2, 2) == (NODES[0][:2], NODES[0][2:])
    assert numa_machine(0, 0, 1, 1).cores_of_gpu_ranks(1, 1) == (NODES[0],)


def test_gpus_of_the_nodes_in_turns_leave_each_rank_its_own_node():
    assert numa_machine(1, 0).cores_of_gpu_ranks(2, 2) == (NODES[1], NODES[0])
    first, second, third = numa_machine(1, 0, 1).cores_of_gpu_ranks(3, 3)
    assert (first, second, third) == (NODES[1][:2], NODES[0], NODES[1][2:])


def test_ranks_that_share_a_gpu_divide_its_cores_and_one_rank_of_all_gpus_has_both_nodes():
    assert numa_machine(0, 1).cores_of_gpu_ranks(2, 4) == (NODES[0][:2], NODES[0][2:], NODES[1][:2], NODES[1][2:])
    assert numa_machine(0, 1).cores_of_gpu_ranks(2, 1) == (NODES[0] + NODES[1],)


def test_where_cores_are_few_some_ranks_share_one():
    assert [cores for (cores,) in numa_machine(1).cores_of_gpu_ranks(1, 6)] == [*NODES[1], *NODES[1][:2]]


@pytest.mark.parametrize(
    "beside",
    [
        (),
        ((),),
        (tuple(range(16)),),
        ((0, 1), ()),
        ((0, 1), tuple(range(16))),
        ((99,), (0, 1)),
    ],
    ids=["nothing told", "not told", "one node", "one not told", "one hidden", "none allowed"],
)
def test_ranks_are_not_pinned_unless_each_gpu_has_cores_of_its_own_node(beside):
    machine = Machine(cores=NODES[0] + NODES[1], gpus=max(1, len(beside)), gpu_cpus=beside)
    assert machine.cores_of_gpu_ranks(1, 1) == ()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_no_core_has_two_ranks_where_there_are_enough(sizes, data):
    """Nodes of so many cores, GPUs anywhere on them, and as many ranks on each GPU."""
    numbers = iter(range(sum(sizes)))
    nodes = [[(next(numbers),) for _ in range(size)] for size in sizes]
    places = data.draw(st.lists(st.sampled_from(range(len(nodes))), min_size=1, max_size=8))
    each = data.draw(st.integers(1, 3))
    shares = divide_cores([nodes[place] for place in places], len(places) * each)
    assert len(shares) == len(places) * each
    for rank, share in enumerate(shares):
        assert share
        assert set(share) <= set(nodes[places[rank // each]])
    for place, node in enumerate(nodes):
        here = [share for rank, share in enumerate(shares) if places[rank // each] == place]
        cores = list(chain.from_iterable(here))
        if len(here) <= len(node):
            assert len(set(cores)) == len(cores)
            assert len({len(share) for share in here}) <= 1
