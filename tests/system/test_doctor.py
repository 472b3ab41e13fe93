import io
import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest
from rich.console import Console

from parbench.system import kernel as kernel_files
from parbench.system.doctor import cpus, examination, gpus, process
from parbench.system.doctor.check import Check
from parbench.system.environment import SPEED_VARIABLES
from parbench.text import GIB
from tests.support.waiting import wait_for


def levels(checker) -> dict[str, str]:
    return {check.topic: check.level for check in checker()}


def text_of(checker) -> str:
    return "\n".join(f"{check.state} {check.advice}" for check in checker())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """An empty folder that stands for all that the checks read from the kernel's files."""
    for module, name in [
        (cpus, "CPUS"),
        (kernel_files, "CPUS"),
        (cpus, "NODES"),
        (cpus, "CGROUP"),
        (process, "CGROUP"),
    ]:
        monkeypatch.setattr(module, name, tmp_path)
    return tmp_path


@pytest.fixture
def allowed(monkeypatch):
    """Sets the allowed cores, each a tuple of logical CPUs."""

    def allow(*cores):
        numbers = frozenset(cpu for core in cores for cpu in core)
        monkeypatch.setattr(cpus, "allowed_cores", lambda: cores)
        for module in (cpus, kernel_files):
            monkeypatch.setattr(module, "allowed_cpus", lambda: numbers)

    return allow


def test_every_check_runs_on_this_machine_and_says_what_to_do():
    checks = examination.examine({})
    assert {"torch", "cores", "CPU quota", "other processes", "steadiness", "memory", "GPUs"} <= {
        f.topic for f in checks
    }
    for check in checks:
        assert check.state
        assert check.level == "ok" or check.advice
        assert check.advice is None or (check.advice[0].isupper() and check.advice.endswith("."))


def test_torch_is_not_imported():
    program = "from parbench.system.doctor.examination import examine; examine({})"
    code = f"import sys; {program}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_broken_plug_ins_are_problems(monkeypatch):
    monkeypatch.setattr(examination, "CHECKERS", ())
    assert examination.examine({"ring": "ImportError: no ring"}) == [
        Check("plug-in ring", "problem", "ImportError: no ring", "Mend or uninstall the package that provides it.")
    ]


def test_checks_come_in_the_order_of_the_checks(monkeypatch):
    first, second = Check("a", "ok", "fine"), Check("b", "ok", "fine")
    monkeypatch.setattr(examination, "CHECKERS", (lambda: iter([first]), lambda: iter([]), lambda: iter([second])))
    assert examination.examine({}) == [first, second]


@pytest.mark.parametrize(
    ("build", "level"),
    [
        ((None, None), "problem"),
        (("2.10.9", None), "warning"),
        (("2.11.0", "12.8"), "ok"),
        (("2.13.1+cpu", None), "ok"),
        (("2.14.0a0+git1234", None), "warning"),
    ],
)
def test_torch_must_be_one_that_was_tried(monkeypatch, build, level):
    monkeypatch.setattr(process, "installed_torch", lambda: build)
    assert levels(process.check_torch) == {"torch": level}


def test_the_range_of_torch_is_that_of_the_package(monkeypatch):
    monkeypatch.setattr(process, "installed_torch", lambda: (None, None))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    [requirement] = [name for name in project["dependencies"] if name.startswith("torch")]
    assert text_of(process.check_torch) == f"not installed Install {requirement}."


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("cores", "level"), [([(0, 1)], "warning"), ([(0, 4), (1, 5)], "ok")])
def test_one_core_is_too_few(allowed, cores, level):
    allowed(*cores)
    assert levels(cpus.check_cores) == {"cores": level}
    assert f"{len(cores)} of " in text_of(cpus.check_cores)
    assert "logical CPUs per core: 2" in text_of(cpus.check_cores)


def test_half_a_core_is_shared_with_strangers(kernel, allowed):
    allowed((0,), (1, 5))
    write(kernel / "cpu0/topology/thread_siblings_list", "0,4\n")
    write(kernel / "cpu1/topology/thread_siblings_list", "1,5\n")
    assert [check.level for check in cpus.check_cores()] == ["ok", "warning"]
    assert "CPUs 4 share" in text_of(cpus.check_cores)


@pytest.mark.parametrize(
    ("granted", "stat", "level"),
    [
        (None, "nr_throttled 5\n", "ok"),
        (4.0, "nr_periods 9\nnr_throttled 0\n", "ok"),
        (4.0, "", "ok"),
        (4.0, "nr_periods 9\nnr_throttled 3\n", "warning"),
        (2.5, "", "warning"),
        (0.5, "", "problem"),
    ],
)
def test_a_quota_disturbs_where_it_runs_out(kernel, monkeypatch, granted, stat, level):
    monkeypatch.setattr(cpus, "cpu_quota", lambda: granted)
    write(kernel / "cpu.stat", stat)
    assert levels(cpus.check_quota) == {"CPU quota": level}
    assert ("used up in 3 periods" in text_of(cpus.check_quota)) == ("nr_throttled 3" in stat)


class Process:
    """A process that uses so many percent of a core, and has no figure before it was looked at once."""

    def __init__(self, pid, name, percent):
        self.pid, self._name, self._percent, self._looks = pid, name, percent, 0

    def name(self):
        return self._name

    def cpu_percent(self):
        if self._percent is None:
            raise psutil.NoSuchProcess(self.pid)
        self._looks += 1
        return self._percent if self._looks > 1 else 0.0


@pytest.fixture
def others(monkeypatch):
    """Sets what else runs: processes, and the percentage of time stolen."""
    monkeypatch.setattr(cpus, "SAMPLE_S", 0.0)

    def run(processes, steal=0.0):
        monkeypatch.setattr(psutil, "process_iter", lambda *_: iter(processes))
        steals = iter([99.0, steal])  # since the machine started, then in the sample
        monkeypatch.setattr(psutil, "cpu_times_percent", lambda *_: SimpleNamespace(steal=next(steals)))

    return run


def test_busy_processes_are_named_busiest_first_and_we_are_not_one(others):
    names = [(7, "small", 3.0), (8, "idle", 0.0), (9, "large", 90.0), (os.getpid(), "we", 100.0), (10, "gone", None)]
    others([Process(*name) for name in names])
    busy, stolen = cpus.check_other_work()
    assert (busy.level, busy.state) == ("warning", "93 % of a core, large (9) 90 %, small (7) 3 %")
    assert (stolen.topic, stolen.level) == ("stolen time", "ok")


def test_only_the_top_offenders_are_named(others):
    others([Process(pid, f"p{pid}", float(pid)) for pid in range(10, 20)])
    busy, _ = cpus.check_other_work()
    assert busy.state == "145 % of a core, p19 (19) 19 %, p18 (18) 18 %, p17 (17) 17 %"


@pytest.mark.parametrize(("steal", "level"), [(0.9, "ok"), (1.1, "warning")])
def test_stolen_time_disturbs(others, steal, level):
    others([Process(7, "small", 3.0)], steal)
    assert levels(cpus.check_other_work) == {"other processes": "ok", "stolen time": level}


def test_a_real_busy_process_is_found(monkeypatch):
    monkeypatch.setattr(cpus, "SAMPLE_S", 0.2)

    def busy() -> Check:
        return next(cpus.check_other_work())

    code = "print('ready', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            # Alone: beside many others it is none of the busiest, and may not get to run at all in a sample.
            monkeypatch.setattr(psutil, "process_iter", lambda *_: iter([psutil.Process(process.pid)]))
            wait_for(lambda: f"({process.pid})" in busy().state, "the busy process", ended=process.poll)
            wait_for(lambda: busy().level == "warning", "the warning", ended=process.poll)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("average", "present", "level"), [(0.9, 2, "ok"), (1.5, 2, "warning"), (1.5, 64, "ok"), (6.5, 64, "warning")]
)
def test_load_is_judged_by_the_size_of_the_machine(monkeypatch, average, present, level):
    monkeypatch.setattr(cpus, "load_average", lambda: (average, 0.0, 0.0))
    monkeypatch.setattr(cpus.os, "cpu_count", lambda: present)
    assert levels(cpus.check_load) == {"load": level}


def test_load_may_be_unknown(monkeypatch):
    monkeypatch.setattr(cpus, "load_average", lambda: None)
    assert levels(cpus.check_load) == {}


@pytest.mark.parametrize(
    ("governor", "level"),
    [(None, "ok"), ("performance", "ok"), ("powersave", "warning"), ("performance, x", "warning")],
)
@pytest.mark.usefixtures("kernel")
def test_the_governor_should_be_performance(monkeypatch, governor, level):
    monkeypatch.setattr(cpus, "governor", lambda: governor)
    assert levels(cpus.check_frequency) == {"frequency governor": level}


@pytest.mark.parametrize(
    ("file", "text", "on"),
    [
        ("intel_pstate/no_turbo", "0\n", True),
        ("intel_pstate/no_turbo", "1\n", False),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
    ],
)
def test_turbo_is_shown_where_it_is_on(kernel, file, text, on):
    write(kernel / file, text)
    assert ("turbo" in levels(cpus.check_frequency)) == on


def test_throttled_cores_are_hot(kernel):
    assert levels(cpus.check_heat) == {}
    write(kernel / "cpu0/thermal_throttle/core_throttle_count", "0\n")
    assert levels(cpus.check_heat) == {}
    write(kernel / "cpu10/thermal_throttle/core_throttle_count", "12\n")
    write(kernel / "cpu11/thermal_throttle/core_throttle_count", "garbled\n")
    assert levels(cpus.check_heat) == {"CPU temperature": "warning"}
    assert "12 times" in text_of(cpus.check_heat)


@pytest.mark.parametrize(
    ("total", "available", "swapped", "limit", "found"),
    [
        (64, 32, 0, None, {"memory": "ok"}),
        (64, 32, 0, "max\n", {"memory": "ok"}),
        (64, 5, 0, None, {"memory": "warning"}),
        (8, 1.9, 0, None, {"memory": "warning"}),
        (64, 32, 0, f"{GIB}\n", {"memory": "warning"}),
        (64, 32, 0.01, None, {"memory": "ok"}),
        (64, 32, 1, None, {"memory": "ok", "swap": "warning"}),
    ],
)
def test_scarce_memory_and_swapping_disturb(kernel, monkeypatch, total, available, swapped, limit, found):
    state = SimpleNamespace(total=total * GIB, available=int(available * GIB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(used=int(swapped * GIB)))
    if limit:
        write(kernel / "memory.max", limit)
    assert levels(process.check_memory) == found


def test_several_memory_nodes_bring_advice(kernel, allowed):
    write(kernel / "node0/cpulist", "0-3\n")
    write(kernel / "node1/cpulist", "4-7\n")
    write(kernel / "node2/cpulist", "\n")
    allowed((0,), (1,))
    assert list(cpus.check_numa()) == []
    allowed((0,), (4,))
    [check] = cpus.check_numa()
    assert (check.topic, check.level) == ("NUMA", "ok")
    assert "2 nodes" in check.state
    assert "numactl" in check.advice


@pytest.fixture
def no_variables(monkeypatch):
    for name, _, _ in process.HARMFUL_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_variables")
def test_no_harmful_variable_is_fine():
    assert levels(process.check_variables) == {"variables": "ok"}


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("name", "value", "harmful"),
    [
        ("OMP_WAIT_POLICY", "PASSIVE", True),
        ("OMP_WAIT_POLICY", "passive ", True),
        ("OMP_WAIT_POLICY", "ACTIVE", False),
        ("GOMP_SPINCOUNT", "0", True),
        ("GOMP_SPINCOUNT", "10000", False),
        ("OMP_NUM_THREADS", "4", True),
        ("CUDA_LAUNCH_BLOCKING", "1", True),
        ("CUDA_LAUNCH_BLOCKING", "0", False),
        ("NCCL_DEBUG", "WARN", False),
        ("NCCL_DEBUG", "INFO", True),
        ("LD_PRELOAD", "", False),
        ("LD_PRELOAD", "libspy.so", True),
    ],
)
def test_harmful_variables(monkeypatch, name, value, harmful):
    monkeypatch.setenv(name, value)
    [check] = process.check_variables()
    assert check.level == ("warning" if harmful else "ok")
    assert not harmful or check.state == f"{name}={value}"


def test_harmful_variables_are_part_of_the_environment():
    assert {name for name, _, _ in process.HARMFUL_VARIABLES} <= set(SPEED_VARIABLES)


def test_room_is_needed_for_shared_memory_and_results(monkeypatch):
    room = {process.SHARED_MEMORY: 64 * 2**20, Path(): 50 * GIB}
    monkeypatch.setattr(process.shutil, "disk_usage", lambda path: SimpleNamespace(free=room[path]))
    assert levels(process.check_space) == {"shared memory": "warning", "disk": "ok"}
    room.update({process.SHARED_MEMORY: 2 * GIB, Path(): GIB - 1})
    assert levels(process.check_space) == {"shared memory": "ok", "disk": "warning"}


def test_shared_memory_may_be_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "SHARED_MEMORY", tmp_path / "none")
    assert set(levels(process.check_space)) == {"disk"}


@pytest.mark.parametrize(("limit", "level"), [(1023, "warning"), (1024, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_few_open_files_disturb(monkeypatch, limit, level):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert levels(process.check_open_files) == {"open files": level}


def unsupported(*_):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one idle GPU that torch can use; what NVML answers can be replaced."""

    def reply(**answers):
        for query, value in answers.items():
            monkeypatch.setattr(pynvml, f"nvml{query}", value if callable(value) else lambda *_, value=value: value)

    reply(
        Init=None,
        Shutdown=None,
        SystemGetDriverVersion="570.1",
        SystemGetCudaDriverVersion_v2=12080,
        DeviceGetCount=1,
        DeviceGetHandleByIndex=lambda index: index,
        DeviceGetUUID=lambda gpu: f"GPU-{gpu}",
        DeviceGetHandleByUUID=lambda uuid: uuid,
        DeviceGetName="NVIDIA H100",
        DeviceGetPersistenceMode=pynvml.NVML_FEATURE_ENABLED,
        DeviceGetComputeRunningProcesses=[],
        DeviceGetMPSComputeRunningProcesses=[],
        SystemGetProcessName=lambda pid: "nvidia-cuda-mps-server" if pid == 9 else "python",
        DeviceGetCurrentClocksThrottleReasons=pynvml.nvmlClocksThrottleReasonGpuIdle,
        DeviceGetComputeMode=pynvml.NVML_COMPUTEMODE_DEFAULT,
        DeviceGetMigMode=(pynvml.NVML_DEVICE_MIG_DISABLE, pynvml.NVML_DEVICE_MIG_DISABLE),
        DeviceGetDeviceHandleFromMigDeviceHandle=unsupported,
    )
    monkeypatch.setattr(gpus, "installed_torch", lambda: ("2.13.0", "12.6"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return reply


def test_where_cuda_answers_and_nvml_does_not_that_is_said(gpu, monkeypatch):
    gpu(Init=unsupported)
    monkeypatch.setattr(gpus, "ask_cuda", lambda: (object(), object()))
    [check] = gpus.check_gpus()
    assert (check.level, "CUDA shows 2, and NVML does not answer" in check.state) == ("warning", True)


def test_a_lost_gpu_is_a_problem_with_advice(gpu):
    gpu(DeviceGetCount=2, DeviceGetUUID=lambda index: f"GPU-{index}" if index == 0 else unsupported())
    lost = [check for check in gpus.check_gpus() if check.level == "problem"]
    assert [(check.topic, check.state) for check in lost] == [("GPU 1", "does not answer")]
    assert lost[0].advice


def test_without_a_driver_only_cpus_are_measured(gpu):
    gpu(Init=unsupported)
    [check] = gpus.check_gpus()
    assert (check.topic, check.level) == ("GPUs", "ok")
    assert "only CPU devices" in check.state


@pytest.mark.usefixtures("gpu")
def test_an_idle_gpu_is_fine():
    assert [(check.topic, check.level, check.state) for check in gpus.check_gpus()] == [
        ("GPUs", "ok", "1 of 1 visible, driver for CUDA 12.8"),
        ("GPU 0", "ok", "NVIDIA H100"),
    ]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("build", "level"),
    [
        (("2.13.0+cpu", None), "problem"),
        (("2.13.0", "13.0"), "problem"),
        (("2.13.0", "12.9"), "ok"),
        (("2.13.0", "11.8"), "ok"),
        ((None, None), "ok"),
    ],
)
def test_torch_and_the_driver_must_fit(monkeypatch, build, level):
    monkeypatch.setattr(gpus, "installed_torch", lambda: build)
    assert levels(gpus.check_gpus)["GPUs"] == level


def test_a_driver_that_does_not_tell_its_version_is_not_called_old(gpu):
    gpu(SystemGetCudaDriverVersion_v2=unsupported)
    assert levels(gpus.check_gpus)["GPUs"] == "ok"


@pytest.mark.usefixtures("gpu")
def test_hidden_gpus_are_mentioned(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [check] = gpus.check_gpus()
    assert (check.level, "0 of 1 visible" in check.state) == ("warning", True)


@pytest.mark.parametrize(
    ("query", "answer", "found"),
    [
        ("DeviceGetPersistenceMode", pynvml.NVML_FEATURE_DISABLED, "persistence mode is off"),
        (
            "DeviceGetComputeRunningProcesses",
            [SimpleNamespace(pid=42), SimpleNamespace(pid=7)],
            "processes 7, 42 compute on it",
        ),
        (
            "DeviceGetComputeRunningProcesses",
            [SimpleNamespace(pid=9)],
            "MPS serves it (process 9): ranks that share it do not take turns",
        ),
        (
            "DeviceGetCurrentClocksThrottleReasons",
            pynvml.nvmlClocksThrottleReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
            "slowed down by its power limit, its temperature",
        ),
        (
            "DeviceGetComputeMode",
            pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
            "its compute mode is exclusive process: several ranks cannot share it",
        ),
    ],
)
def test_what_disturbs_a_gpu(gpu, query, answer, found):
    gpu(**{query: answer})
    disturbance = list(gpus.check_gpus())[-1]
    assert (disturbance.topic, disturbance.level, disturbance.state) == ("GPU 0", "warning", found)
    gpu(**{query: unsupported})
    assert levels(gpus.check_gpus) == {"GPUs": "ok", "GPU 0": "ok"}


@pytest.mark.parametrize("reason", gpus.THROTTLE_REASONS)
def test_every_reason_for_throttling_is_one_of_nvml(reason):
    assert getattr(pynvml, f"nvmlClocksThrottleReason{reason}")


@pytest.mark.parametrize(("spread", "level"), [(1.1, "ok"), (1.3, "warning")])
def test_the_least_steady_core_decides(monkeypatch, allowed, spread, level):
    spreads = {0: 1.01, 1: spread, 2: 1.02}
    monkeypatch.setattr(cpus, "_spread", lambda cpu, _: spreads[cpu])
    allowed((0, 4), (1, 5), (2, 6))
    assert levels(cpus.check_steadiness) == {"steadiness": level}
    assert f"{spread:.2f} times as long as the fastest, on CPU 1" in text_of(cpus.check_steadiness)


def test_many_cores_share_the_time_of_the_self_test(monkeypatch, allowed):
    budgets = []
    monkeypatch.setattr(cpus, "_spread", lambda _, budget_s: budgets.append(budget_s) or 1.0)
    allowed(*((cpu,) for cpu in range(64)))
    list(cpus.check_steadiness())
    assert len(budgets) == 64
    assert sum(budgets) == pytest.approx(cpus.ALL_SPINS_S)


def test_the_self_test_pins_no_thread_but_its_own(monkeypatch):
    monkeypatch.setattr(cpus, "SPIN_S", 0.0)
    before, pinned = os.sched_getaffinity(0), []
    spread = cpus._spread
    monkeypatch.setattr(cpus, "_spread", lambda *where: (spread(*where), pinned.append(os.sched_getaffinity(0)))[0])
    list(cpus.check_steadiness())
    assert os.sched_getaffinity(0) == before
    assert pinned == [{core[0]} for core in cpus.allowed_cores()]


def test_the_spread_is_the_slow_end_over_the_fast_end(monkeypatch):
    works_s = [1.0] * 10 + [1.8] * 10
    starts_and_ends = [reading for work_s in works_s for reading in (100.0, 100.0 + work_s)]
    clock = iter([0.0, *starts_and_ends, 100.0])  # the first sets the deadline, the last finds it passed
    monkeypatch.setattr(cpus, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(cpus.os, "sched_setaffinity", lambda *_: None)
    assert cpus._spread(0, 50.0) == pytest.approx(1.8)


def test_what_is_shown_cannot_be_markup_or_terminal_codes():
    checks = [
        Check("plug-in [red]x", "problem", "bad\x1b[31m\x07 [/nope] :bug:\nnext\u202e line", "Mend [it]."),
        Check("torch", "ok", "2.13.0"),
    ]
    screen = io.StringIO()
    examination.render(checks, Console(file=screen, width=160, force_terminal=False))
    shown = screen.getvalue()
    for text in ("problem", "plug-in [red]x", "bad[31m [/nope] :bug: next line", "Mend [it].", "ok", "2.13.0"):
        assert text in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert "None" not in shown


def test_a_sliced_gpu_is_mentioned(gpu):
    gpu(
        DeviceGetMigMode=(pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE),
        DeviceGetMaxMigDeviceCount=1,
        DeviceGetMigDeviceHandleByIndex="slice",
        DeviceGetUUID=lambda handle: f"MIG-{handle}",
        DeviceGetDeviceHandleFromMigDeviceHandle=0,
    )
    assert "cut into slices (MIG)" in text_of(gpus.check_gpus)


@pytest.mark.parametrize(
    ("beside", "state", "level"),
    [
        (frozenset(), "NVIDIA H100", "ok"),
        (frozenset({0, 1, 2, 8}), "NVIDIA H100, beside CPUs 0-2,8", "ok"),
        (frozenset({4, 5}), "none of the CPUs beside it is allowed: ranks reach it from another NUMA node", "warning"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_the_cpus_beside_a_gpu_are_told(monkeypatch, beside, state, level):
    monkeypatch.setattr(gpus, "cpus_beside", lambda *_: beside)
    monkeypatch.setattr(gpus, "allowed_cpus", lambda: frozenset({0, 1}))
    last = list(gpus.check_gpus())[-1]
    assert (last.state, last.level) == (state, level)
