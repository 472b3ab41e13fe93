import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from parbench.launch.local.launcher import LocalLauncher

TESTS = Path(__file__).parent
OFFSPRING = f"3600.{os.getpid()}"
"""How long what misbehaving ranks start sleeps: tests that run beside these do not take it for theirs."""

# The same examples in every run, and no verdict on how long one took: that is the machine's affair.
settings.register_profile("parbench", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parbench")

# The suite may run as a background job of a shell, or under nohup: what tests start would ignore these signals as well.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Token files and compiled code of the tests stay out of the user's caches.

    torch's own cache, which all processes of a user share, may hold libraries that a killed compiler left half-written.
    """
    caches = {name: str(tmp_path_factory.mktemp("cache")) for name in ("PARBENCH_CACHE", "TORCHINDUCTOR_CACHE_DIR")}
    with pytest.MonkeyPatch.context() as environment:
        for name, folder in caches.items():
            environment.setenv(name, folder)
        yield


@pytest.fixture(scope="session")
def launcher() -> Iterator[LocalLauncher]:
    """One fork server for all tests in this process; every trial still gets fresh ranks."""
    local = LocalLauncher()
    local.start()
    yield local
    local.close()


@pytest.fixture(scope="session")
def foreign_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a user's package with entry points is installed in, by pip."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for file in (TESTS / "foreign_package").iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(target), str(source)], check=True, capture_output=True)
    return target


def python_path(*folders: Path) -> str:
    """These folders, and then what Python looks in here: the parbench of these tests may be found by that."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


class CommandLine:
    """parbench from outside, as a process."""

    def __init__(self, folder: Path, *, packages: Path | None = None) -> None:
        self.folder = folder
        self.environment = {**os.environ, "OFFSPRING": OFFSPRING}
        if packages is not None:
            self.environment["PYTHONPATH"] = python_path(packages)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "parbench", *map(str, arguments)]

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def parbench(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def parbench_with_plugins(tmp_path: Path, foreign_package: Path) -> CommandLine:
    return CommandLine(tmp_path, packages=foreign_package)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts an empty file system of 64 KiB; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "parbench-test", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
