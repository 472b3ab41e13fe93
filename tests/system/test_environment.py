import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pynvml
import pytest
from pydantic import ValidationError

from parbench import __version__
from parbench.system import cpus, environment, kernel, nvml, software
from parbench.system.environment import (
    SPEED_VARIABLES,
    Accelerator,
    Circumstances,
    Environment,
    Speed,
    capture,
    differences,
)

SPEED = Speed(
    cpu_model="Fast CPU",
    physical_cores=8,
    logical_cpus_per_core=2,
    cpu_quota=None,
    memory_gib=32,
    governor="performance",
    accelerators=(Accelerator(name="NVIDIA H100", memory_gib=80, count=2),),
    gpu_links={"0-1": "NVLink"},
    driver="570.1",
    torch="2.13.0",
    cuda="12.8",
    python="3.11.7",
    kernel="6.8",
    glibc="2.39",
    variables={"OMP_PLACES": "cores", "NCCL_ALGO": "Ring"},
)
CONTEXT = Circumstances(
    host="here", parbench="0.1.0", git_commit=None, load_average=None, captured_at="2030-01-02T03:04:05+00:00"
)
ENVIRONMENT = Environment(speed=SPEED, context=CONTEXT)
CANONICAL = (
    '{"accelerators":[{"count":2,"memory_gib":80,"name":"NVIDIA H100"}],"cpu_model":"Fast CPU","cpu_quota":null,'
    '"cuda":"12.8","driver":"570.1","glibc":"2.39","governor":"performance","gpu_links":{"0-1":"NVLink"},'
    '"kernel":"6.8","logical_cpus_per_core":2,"memory_gib":32,"physical_cores":8,"python":"3.11.7",'
    '"torch":"2.13.0","variables":{"NCCL_ALGO":"Ring","OMP_PLACES":"cores"}}'
)
GPU_QUERIES = [
    "nvmlDeviceGetCount",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetName",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlSystemGetDriverVersion",
]


def with_speed(**changes) -> Environment:
    return Environment(speed=Speed(**{**dict(SPEED), **changes}), context=CONTEXT)


def unsupported(*_):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def sessions(monkeypatch):
    """A driver with three GPUs: the first two joined by NVLink, the third unlike them. Counts its open sessions."""
    gpus = {"GPU-a": ("NVIDIA H100", 79.6), "GPU-b": ("NVIDIA H100", 79.6), "GPU-c": ("NVIDIA L4", 22.5)}
    uuids = list(gpus)
    opened: list[int] = []
    answers = {
        "nvmlInit": lambda: opened.append(1),
        "nvmlShutdown": opened.pop,
        "nvmlSystemGetDriverVersion": lambda: "570.1",
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": lambda index: uuids[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUUID": lambda gpu: gpu,
        "nvmlDeviceGetName": lambda gpu: gpus[gpu][0],
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=int(gpus[gpu][1] * 2**30)),
        "nvmlDeviceGetP2PStatus": lambda one, two, what: (
            pynvml.NVML_P2P_STATUS_OK
            if {one, two} == {"GPU-a", "GPU-b"} and what == pynvml.NVML_P2P_CAPS_INDEX_NVLINK
            else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED
        ),
        "nvmlDeviceGetTopologyCommonAncestor": lambda one, two: (
            pynvml.NVML_TOPOLOGY_SYSTEM if "GPU-a" in (one, two) else pynvml.NVML_TOPOLOGY_SINGLE
        ),
    }
    for query, reply in answers.items():
        monkeypatch.setattr(pynvml, query, reply)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return opened


def test_what_is_captured_here_agrees_with_other_sources():
    speed = capture().speed
    assert speed.physical_cores == len(cpus.allowed_cores())
    assert speed.physical_cores * speed.logical_cpus_per_core >= len(set().union(*cpus.allowed_cores()))
    assert speed.memory_gib == round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    assert speed.python == ".".join(map(str, sys.version_info[:3]))
    assert platform.release().startswith(f"{speed.kernel}.")
    assert f"glibc {speed.glibc}" == os.confstr("CS_GNU_LIBC_VERSION")
    assert (speed.torch, speed.cuda) == software.torch_build()


def test_the_context_tells_where_and_when():
    context = capture().context
    captured = datetime.fromisoformat(context.captured_at)
    assert captured.utcoffset() == timedelta(0)
    assert captured.date() <= datetime.now(UTC).date()
    assert context.host == platform.node()
    assert context.parbench == __version__


def test_reading_back_gives_the_same_environment():
    captured = capture()
    again = Environment.model_validate_json(captured.model_dump_json())
    assert again == captured
    assert again.digest == captured.digest
    assert differences(again, captured) == []


def test_torch_is_not_imported():
    program = "from parbench.system.environment import capture; capture()"
    code = f"import sys; {program}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_digest_is_that_of_canonical_json():
    assert ENVIRONMENT.digest == hashlib.sha256(CANONICAL.encode()).hexdigest()[:16]


def test_the_digest_does_not_depend_on_the_order_of_variables():
    assert with_speed(variables=dict(reversed(SPEED.variables.items()))).digest == ENVIRONMENT.digest


@pytest.mark.parametrize(("field", "value"), [("torch", "2.12.0"), ("variables", {}), ("cpu_quota", 2.5)])
def test_the_digest_depends_on_speed(field, value):
    assert with_speed(**{field: value}).digest != ENVIRONMENT.digest


def test_the_digest_does_not_depend_on_context():
    elsewhere = CONTEXT.model_copy(update={"host": "there", "load_average": (9.0, 9.0, 9.0), "git_commit": "abc"})
    assert Environment(speed=SPEED, context=elsewhere).digest == ENVIRONMENT.digest
    assert differences(ENVIRONMENT, Environment(speed=SPEED, context=elsewhere)) == []


def test_differences_name_fields_and_single_variables():
    other = with_speed(torch="2.12.0", variables={"OMP_PLACES": "threads", "LD_PRELOAD": "x.so"}, gpu_links={})
    assert differences(ENVIRONMENT, other) == [
        ("gpu_links.0-1", "NVLink", None),
        ("torch", "2.13.0", "2.12.0"),
        ("variables.OMP_PLACES", "cores", "threads"),
        ("variables.NCCL_ALGO", "Ring", None),
        ("variables.LD_PRELOAD", None, "x.so"),
    ]


def test_absent_unknown_and_empty_are_the_same():
    assert differences(with_speed(gpu_links={}, network=()), with_speed(gpu_links={}, nccl=None)) == []
    assert environment.differ(None, ()) is False
    assert environment.differ({}, None) is False
    assert environment.differ(None, ("eth0",)) is True


def test_libraries_are_told_where_torch_is_built_for_cuda(monkeypatch):
    installed = {"nvidia-nccl-cu12": "2.28.9", "nvidia-cudnn-cu13": "9.13.0", "triton": "3.6.0"}

    def version(name):
        if name not in installed:
            raise software.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(software, "version", version)
    assert software.installed_libraries("12.8") == {"nccl": "2.28.9", "triton": "3.6.0"}
    assert software.installed_libraries("13.0") == {"cudnn": "9.13.0", "triton": "3.6.0"}
    assert software.installed_libraries(None) == {}


@pytest.mark.parametrize("library", ["nccl", "cudnn", "triton"])
def test_another_library_is_another_environment(library):
    assert with_speed(**{library: "2.28.9"}).digest != ENVIRONMENT.digest


@pytest.mark.parametrize(
    "change",
    [
        {"power_limit_w": 500},
        {"max_clock_mhz": 1980},
        {"max_memory_clock_mhz": 2619},
        {"ecc": False},
        {"mig": True},
        {"compute_mode": "exclusive process"},
    ],
)
def test_what_changes_the_speed_of_a_gpu_is_another_environment(change):
    gpu = Accelerator(name="NVIDIA H100", memory_gib=80, count=2)
    assert with_speed(accelerators=(gpu,)).digest == ENVIRONMENT.digest
    assert with_speed(accelerators=(gpu.model_copy(update=change),)).digest != ENVIRONMENT.digest


def test_differing_accelerators_can_be_shown():
    other = with_speed(accelerators=(Accelerator(name="NVIDIA L4", memory_gib=22, count=4),))
    [(field, ours, theirs)] = differences(ENVIRONMENT, other)
    assert field == "accelerators"
    assert [str(accelerator) for accelerator in (*ours, *theirs)] == [
        "2 × NVIDIA H100 (80 GiB)",
        "4 × NVIDIA L4 (22 GiB)",
    ]


def test_an_environment_does_not_change_and_leaves_out_what_another_parbench_adds():
    with pytest.raises(ValidationError, match="frozen"):
        ENVIRONMENT.speed.torch = "1.0"
    newer = {**ENVIRONMENT.model_dump(), "colour": "red", "speed": {**SPEED.model_dump(), "colour": "red"}}
    assert Environment.model_validate(newer) == ENVIRONMENT


def test_only_listed_variables_are_recorded(monkeypatch):
    for name in SPEED_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    monkeypatch.setenv("NCCL_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    captured = capture()
    assert captured.speed.variables == {"NCCL_ALGO": "Tree"}
    assert "hunter2" not in captured.model_dump_json()


def test_no_variable_is_listed_twice():
    assert len(SPEED_VARIABLES) == len(set(SPEED_VARIABLES))


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9654\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9654\n",
         "AMD EPYC 9654"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "Arm implementer 0x41 part 0xd40"),
        ("model name : a: b\n", "a: b"),
        ("processor : 0\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_cpus_model(tmp_path, monkeypatch, cpuinfo, model):
    monkeypatch.setattr(kernel, "CPUINFO", tmp_path / "cpuinfo")
    kernel.CPUINFO.write_text(cpuinfo)
    assert capture().speed.cpu_model == model


def test_governors_of_the_allowed_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "CPUS", tmp_path)
    monkeypatch.setattr(kernel, "allowed_cpus", lambda: frozenset({0, 1, 2, 10}))
    for cpu, governor in enumerate(["powersave\n", "performance\n", "ondemand\n", "schedutil\n"]):
        (tmp_path / f"cpu{cpu}/cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/cpufreq/scaling_governor").write_text(governor)
    assert kernel.governor() == "ondemand, performance, powersave"


@pytest.mark.parametrize(
    ("release", "kernel"), [("6.8.0-45-generic", "6.8"), ("5.15.167.4-microsoft-standard-WSL2", "5.15"), ("odd", None)]
)
def test_the_kernels_version_is_major_and_minor(monkeypatch, release, kernel):
    monkeypatch.setattr(environment.platform, "release", lambda: release)
    assert capture().speed.kernel == kernel


def test_what_cannot_be_read_is_none(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(kernel, "CPUINFO", tmp_path)
    monkeypatch.setattr(kernel, "CPUS", tmp_path / "nowhere")
    monkeypatch.setattr(environment.os, "getloadavg", refuse)
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(software, "torch_build", refuse)
    monkeypatch.setattr(pynvml, "nvmlInit", unsupported)
    speed, context = capture().speed, capture().context
    nothing = (speed.cpu_model, speed.governor, speed.glibc, speed.torch, speed.cuda, speed.driver)
    assert nothing == (None,) * 6
    assert speed.accelerators == ()
    assert (context.load_average, context.git_commit) == (None, None)


def test_without_a_driver_there_is_no_nvml(monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", unsupported)
    with nvml.nvml() as driver:
        assert driver is None


def test_a_core_may_have_fewer_allowed_cpus_than_others(monkeypatch):
    monkeypatch.setattr(environment, "allowed_cores", lambda: ((0,), (1, 5), (2,)))
    speed = capture().speed
    assert (speed.physical_cores, speed.logical_cpus_per_core) == (3, 2)


def test_a_machine_may_have_no_torch(monkeypatch):
    monkeypatch.setattr(software, "torch_build", lambda: None)
    assert software.installed_torch() == (None, None)


def test_equal_gpus_are_counted_and_their_links_named(sessions):
    speed = capture().speed
    assert speed.accelerators == (
        Accelerator(name="NVIDIA H100", memory_gib=80, count=2),
        Accelerator(name="NVIDIA L4", memory_gib=22, count=1),
    )
    assert speed.gpu_links == {"0-1": "NVLink", "0-2": "SYS", "1-2": "PIX"}
    assert speed.driver == "570.1"
    assert sessions == []


def test_only_visible_gpus_are_recorded_and_in_their_order(sessions, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    speed = capture().speed
    assert [accelerator.name for accelerator in speed.accelerators] == ["NVIDIA L4", "NVIDIA H100"]
    assert speed.gpu_links == {"0-1": "SYS"}


@pytest.mark.usefixtures("sessions")
@pytest.mark.parametrize("query", GPU_QUERIES)
def test_a_query_that_fails_is_not_fatal(monkeypatch, query):
    monkeypatch.setattr(pynvml, query, unsupported)
    captured = capture()
    assert Environment.model_validate_json(captured.model_dump_json()) == captured


@pytest.mark.usefixtures("sessions")
def test_what_gpus_do_not_tell_is_unknown(monkeypatch):
    for query in set(GPU_QUERIES) - {"nvmlDeviceGetCount"}:
        monkeypatch.setattr(pynvml, query, unsupported)
    speed = capture().speed
    assert speed.accelerators == (Accelerator(name=None, memory_gib=None, count=3),)
    assert set(speed.gpu_links.values()) == {"unknown"}
    assert speed.driver is None


@pytest.mark.cuda
def test_the_gpus_of_this_machine():
    if not nvml.nvml_gpu_uuids():
        pytest.skip("there is no NVIDIA GPU")
    speed = capture().speed
    assert speed.driver
    assert all(accelerator.name and accelerator.memory_gib for accelerator in speed.accelerators)
    assert "unknown" not in speed.gpu_links.values()


def test_the_commit_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert capture().context.git_commit is None
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert capture().context.git_commit is None
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *author, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert capture().context.git_commit == head
    monkeypatch.setenv("PATH", "")
    assert capture().context.git_commit is None


def test_a_git_that_hangs_is_given_up(monkeypatch):
    def hang(command, *, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(environment.subprocess, "run", hang)
    assert capture().context.git_commit is None
