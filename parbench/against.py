"""A against B on this machine, now: two arms take turns in one campaign, launch by launch."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from parbench.cells import Plan
from parbench.environment import Environment, differences
from parbench.errors import UsageError
from parbench.launch.arm import ArmLauncher
from parbench.launch.open_files import require_open_files
from parbench.progress import Progress
from parbench.proving import expected_proofs, prove, verify
from parbench.recorder import Recorder
from parbench.results.store import Run, Store, read_run
from parbench.run import most_ranks, prepare_corpora, run_record
from parbench.scenario import ModelSpec
from parbench.tasks import Origin, shuffled_rounds

EXAMINE = (Path(__file__).parent / "examine.py").read_text(encoding="utf-8")


class Checkout(NamedTuple):
    """A commit of the repository at `root`, checked out at `tree`."""

    root: Path
    tree: Path

    def moved(self, folder: Path) -> Path:
        """Where the commit has a folder of the repository; other folders stay where they are."""
        found = folder.resolve()
        return self.tree / found.relative_to(self.root) if found.is_relative_to(self.root) else folder


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An interpreter, and the folders that it imports from before all else; of a checkout it must use some code."""

    name: str
    python: Path = Path(sys.executable)
    paths: tuple[Path, ...] = ()
    checkout: Checkout | None = None


class Seen(NamedTuple):
    """A plan as an arm sees it, and the files of the modules that its models were found in."""

    plan: Plan
    modules: tuple[Path, ...] = ()


Arms = tuple[Arm, Arm]
"""The candidate, and the base that it is compared with."""


@contextlib.contextmanager
def arms_against(what: str) -> Iterator[Arms]:
    """The two arms that `--against` names: `git:REF`, `python:PATH` or `itself`. Raises `UsageError`."""
    kind, _, value = what.partition(":")
    if what == "itself":
        yield Arm(name="candidate"), Arm(name="base")
    elif kind == "git" and value:
        with _worktree(value) as (root, tree):
            yield (
                Arm(name="candidate", paths=_import_folders(root, root)),
                Arm(name="base", paths=_import_folders(root, tree), checkout=Checkout(root, tree)),
            )
    elif kind == "python" and value:
        python = shutil.which(value)
        if python is None:
            raise UsageError(f"--against {what}: there is no interpreter '{value}' that can be started")
        yield Arm(name="candidate"), Arm(name="base", python=Path(python).absolute())
    else:
        raise UsageError(f"--against {what}: must be git:REF or python:PATH, such as git:main or python:old/bin/python")


def run_arms(
    plan: Plan, arms: Arms, folder: Path, progress: Progress, *, command: Sequence[str]
) -> tuple[Run, Run, list[str]]:
    """Measures both arms in every round, who goes first balanced at random; their runs and how their software differs.

    Servers are started anew in every round: what one has by luck, such as where its libraries lie in memory, is then
    noise between rounds and never a difference between the arms.
    """
    require_open_files(most_ranks(plan))
    corpora, rounds = prepare_corpora(plan), shuffled_rounds(plan)
    seen = {arm.name: _seen_by(arm, plan) for arm in arms}
    cells = {name: {cell.record.id: cell for cell in each.plan.cells} for name, each in seen.items()}
    order = random.Random(plan.scenario.measure.seed)  # noqa: S311 - a shuffle, not a secret
    turns = {task.key: _balanced(arms, plan.scenario.measure.rounds, order) for task in rounds}
    expected = {task.launch for task in (*expected_proofs(plan), *rounds)}
    with contextlib.ExitStack() as stack:
        stores = {arm.name: stack.enter_context(Store.locked(folder / arm.name)) for arm in arms}
        stack.enter_context(progress.campaign(len(expected) * len(arms), already=0))
        recorders: dict[str, Recorder] = {}
        with _servers(arms) as (launchers, environments):
            for arm in arms:
                _require_own_code(arm, (*launchers[arm.name].modules, *seen[arm.name].modules))
                store, environment = stores[arm.name], environments[arm.name]
                store.begin(run_record(plan, store.folder, environment, corpora, command))
                recorders[arm.name] = Recorder(
                    plan=seen[arm.name].plan,
                    store=store,
                    launcher=launchers[arm.name],
                    origin=Origin(environment.digest),
                    corpora=corpora,
                    progress=progress,
                    taken={},
                    expected=expected,
                )
                prove(seen[arm.name].plan, recorders[arm.name])
        for _, group in groupby(rounds, key=lambda task: task.round):
            with _fresh(recorders, arms):
                for task in group:
                    for arm in turns[task.key][task.round]:
                        recorders[arm.name].take(replace(task, cell=cells[arm.name][task.cell.record.id]))
        with _fresh(recorders, arms):
            for arm in arms:
                verify(seen[arm.name].plan, recorders[arm.name])
    candidate, base = (read_run(folder / arm.name) for arm in arms)
    changed = differences(*(environments[arm.name] for arm in reversed(arms)))
    return candidate, base, [f"The arms differ in {field}: {old} → {new}." for field, old, new in changed]


def _balanced(arms: Arms, rounds: int, order: random.Random) -> list[Sequence[Arm]]:
    """Who goes when, round by round: each arm is first in half of the rounds, and which rounds is random."""
    turns: list[Sequence[Arm]] = [arms if number % 2 else arms[::-1] for number in range(rounds)]
    order.shuffle(turns)
    return turns


@contextlib.contextmanager
def _fresh(recorders: Mapping[str, Recorder], arms: Arms) -> Iterator[None]:
    """As long as it lasts, both arms launch by servers that were started for it."""
    with _servers(arms) as (launchers, environments):
        for name, recorder in recorders.items():
            recorder.launcher, recorder.origin = launchers[name], Origin(environments[name].digest)
        yield


@contextlib.contextmanager
def _servers(arms: Arms) -> Iterator[tuple[Mapping[str, ArmLauncher], Mapping[str, Environment]]]:
    """A launcher for each arm, with the environment that it runs in; both import torch at the same time."""
    launchers = {arm.name: ArmLauncher(arm.python, arm.paths) for arm in arms}
    try:
        for launcher in launchers.values():
            launcher.start()
        yield launchers, {name: launcher.greet() for name, launcher in launchers.items()}
    finally:
        for launcher in launchers.values():
            launcher.close()


def _require_own_code(arm: Arm, modules: Sequence[Path]) -> None:
    """Raises `UsageError` where an arm has a commit checked out, and nothing that it runs comes from there."""
    if arm.checkout and not any(path.is_relative_to(arm.checkout.tree) for path in modules):
        raise UsageError(
            "nothing that this scenario runs comes from this repository, neither a strategy, a model nor parbench: the "
            "commit would be compared with itself. If your package is in it, install it from there (pip install "
            "--editable .); if your model is, name its file in the scenario (build: path/to/file.py:function)"
        )


def _seen_by(arm: Arm, plan: Plan) -> Seen:
    """The plan with the arm's own folder, and the models that people bring as they are there.

    Raises `UsageError` where the arm cannot build one of them.
    """
    folder = arm.checkout.moved(plan.folder) if arm.checkout else plan.folder
    workloads = {cell.record.workload: plan.scenario.workloads[cell.record.workload] for cell in plan.runnable}
    brought = {
        name: {
            "model": spec.model.model_dump(mode="json", exclude=filled),
            "vocab_size": spec.vocab_size,
            "seq_len": spec.seq_len,
        }
        for name, spec in workloads.items()
        if (filled := _filled_in(spec.model))
    }
    if not brought or (arm.checkout is None and arm.python == Path(sys.executable)):
        return Seen(replace(plan, folder=folder))
    found = _examined(arm, {"folder": str(folder), "workloads": brought})
    if "refusal" in found:
        raise UsageError(f"the arm compared with cannot build workload {found['refusal']}; leave it out with --only")
    models = {
        name: type(workloads[name].model).model_validate(model, context={"folder": folder})
        for name, model in found["models"].items()
    }
    cells = tuple(
        replace(cell, workload=cell.workload.model_copy(update={"model": models[cell.record.workload]}))
        if cell.record.workload in models
        else cell
        for cell in plan.cells
    )
    return Seen(replace(plan, folder=folder, cells=cells), tuple(map(Path, found["modules"])))


def _filled_in(model: ModelSpec) -> set[str]:
    """The fields that are no part of the schema: nobody writes them, they are found when the model is examined."""
    return {*type(model).model_fields} - {*type(model).model_json_schema()["properties"]}


def _import_path(paths: Sequence[Path]) -> str:
    """`PYTHONPATH` with these folders first, as for the arm's launches."""
    return os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])


def _examined(arm: Arm, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `examine` says in the arm."""
    ended = subprocess.run(  # noqa: S603 - the interpreter is the user's own choice, the text ours
        [arm.python, "-P", "-c", EXAMINE],
        input=json.dumps(asked),
        env={**os.environ, "PYTHONPATH": _import_path(arm.paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = ended.stderr.strip().splitlines()
        raise UsageError(f"{arm.python} cannot examine models: {said[-1] if said else 'no answer'}") from None
    return answer


def _import_folders(root: Path, tree: Path) -> tuple[Path, ...]:
    """Where `tree` keeps what this process imports from `root`, and the usual places."""
    below = (Path(entry or os.curdir).resolve() for entry in sys.path)
    inside = [folder.relative_to(root) for folder in below if folder.is_relative_to(root)]
    folders = dict.fromkeys([*inside, Path(), Path("src")])
    return tuple(tree / folder for folder in folders if (tree / folder).is_dir())


@contextlib.contextmanager
def _worktree(reference: str) -> Iterator[tuple[Path, Path]]:
    """The repository of the current folder, and a checkout of `reference` that lasts as long as the block."""
    root = Path(_git("rev-parse", "--show-toplevel")).resolve()
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{reference}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="parbench-") as temporary:
        tree = Path(temporary).resolve() / "base"
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield root, tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise UsageError("--against git:REF needs git, which is not installed")
    ended = subprocess.run(  # noqa: S603 - a list of arguments, and no option can be smuggled in
        [git, *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        raise UsageError(f"git {arguments[0]} failed: {said[-1] if said else f'exit code {ended.returncode}'}")
    return ended.stdout.strip()
