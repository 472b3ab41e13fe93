"""What is asked of NVIDIA's Multi-Process Service, and of CUDA about it."""

import ctypes
from types import SimpleNamespace

import pytest

from parbench.system import devices, mps


def put_on_path(folder, monkeypatch, script: str) -> None:
    program = folder / mps.CONTROL
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_it_can_be_started_where_its_program_is_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.detect().no_mps == "nvidia-cuda-mps-control, which starts MPS, is not on the PATH"
    put_on_path(tmp_path, monkeypatch, "exit 0")
    assert devices.detect().no_mps is None


@pytest.mark.parametrize(
    ("script", "taken"),
    [('test "$(cat)" = "get_server_list"', True), ("echo Cannot find MPS control daemon process; exit 1", False)],
)
def test_a_daemon_takes_a_command_or_there_is_none(tmp_path, monkeypatch, script, taken):
    put_on_path(tmp_path, monkeypatch, script)
    assert mps.command_daemon("get_server_list", {"PATH": f"{tmp_path}:/usr/bin:/bin"}) is taken


def test_a_daemon_that_does_not_answer_has_taken_nothing(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, "exec sleep 60")
    assert mps.command_daemon("quit", {"PATH": f"{tmp_path}:/usr/bin:/bin"}, patience_s=0.1) is False


def test_without_the_program_nothing_is_taken(tmp_path):
    assert mps.command_daemon("quit", {"PATH": str(tmp_path)}) is False


class Driver:
    """CUDA's driver, which knows device 1 as number 41, and that MPS serves it where `value` says so."""

    def __init__(self, value: int, error: int = 0) -> None:
        self.value, self.error = value, error

    def cuDeviceGet(self, handle, device):  # noqa: N802 - the driver's name
        handle._obj.value = 40 + device
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):  # noqa: N802
        assert (attribute, handle.value) == (133, 41)
        value._obj.value = self.value
        return self.error


@pytest.mark.parametrize(
    ("driver", "known"), [(Driver(1), True), (Driver(0), False), (Driver(1, error=1), None)], ids=["yes", "no", "old"]
)
def test_cuda_says_whether_this_process_goes_through_it(monkeypatch, driver, known):
    monkeypatch.setattr(mps.ctypes, "CDLL", lambda _: driver)
    assert mps.is_client(1) is known


def test_without_cuda_nobody_says(monkeypatch):
    def absent(_: str) -> SimpleNamespace:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert mps.is_client(0) is None
