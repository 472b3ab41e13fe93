"""CUDA is asked in a process of its own, with a made-up torch."""

import pytest

from parbench.system import cuda_query, devices, environment
from parbench.system.cuda_query import CudaDevice, ask_cuda
from parbench.system.environment import Accelerator

TORCH = """
from types import SimpleNamespace as Properties
class cuda:
    device_count = staticmethod(lambda: 2)
    get_device_properties = staticmethod(
        lambda index: Properties(name="NVIDIA H100 PCIe", total_memory=85_000_000_000, major=9, minor=index)
    )
print("a driver's greeting")
"""
H100 = CudaDevice("NVIDIA H100 PCIe", 85_000_000_000, (9, 0))


@pytest.fixture
def torch_on_path(tmp_path, monkeypatch):
    """A machine with a device file and without NVML, on which `import torch` runs the given text."""

    def write(text: str) -> None:
        (tmp_path / "torch.py").write_text(text)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(cuda_query, "DEVICE_FILES", (tmp_path,))
    monkeypatch.setattr(cuda_query, "installed_torch", lambda: ("2.13.0", "12.8"))
    monkeypatch.setattr(devices, "torch_build", lambda: ("2.13.0", "12.8"))
    ask_cuda.cache_clear()
    yield write
    ask_cuda.cache_clear()


def test_without_nvml_cuda_tells_the_gpus(torch_on_path):
    torch_on_path(TORCH)
    assert ask_cuda() == (H100, H100._replace(compute_capability=(9, 1)))
    machine = devices.detect()
    assert (machine.gpus, machine.compute_capability) == (2, (9, 0))
    expected = Accelerator(name="NVIDIA H100 PCIe", memory_gib=79, count=2)
    assert environment.capture().speed.accelerators == (expected,)


@pytest.mark.parametrize("text", ["raise ImportError", "", "import sys; sys.exit(3)"])
def test_a_torch_that_fails_shows_no_gpu(torch_on_path, text):
    torch_on_path(text)
    assert ask_cuda() == ()
    assert devices.detect().gpus == 0


def test_nothing_is_asked_without_a_device_file(torch_on_path, monkeypatch, tmp_path):
    torch_on_path(TORCH)
    monkeypatch.setattr(cuda_query, "DEVICE_FILES", (tmp_path / "absent",))
    assert ask_cuda() == ()
    assert devices.detect().gpus == 0
