"""Models that people bring: what is found out about them, every way to go wrong, and real runs of the example."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.corpus import prepare
from parbench.errors import ScenarioError
from parbench.figures.losses import job_losses
from parbench.models import examination
from parbench.models.nn import probe
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.results.deviations import PARITY_TOLERANCE, parity_deviation
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from tests.conftest import OFFSPRING
from tests.faults.scenarios import offspring
from tests.support.waiting import wait_for

BROUGHT = Path(__file__).parents[1] / "scenarios" / "brought.py"
EXAMPLE = Path(__file__).parents[2] / "scenarios" / "custom" / "mixer.yaml"
SCENARIO = """\
workloads:
  mine:
    model:
      kind: custom
      build: models/brought.py:seamed
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 16
strategies: [single, ddp, fsdp, model_parallel]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
"""


@pytest.fixture
def scenario(tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copy(BROUGHT, tmp_path / "models" / "brought.py")
    path = tmp_path / "mine.yaml"
    path.write_text(SCENARIO)
    return path


def plan(path: Path, function: str = "seamed", *overrides: str) -> Plan:
    build = f"workloads.mine.model.build=models/brought.py:{function}"
    return read_plan(path, Machine(cores=allowed_cores()), [build, *overrides])


def reasons(made: Plan) -> dict[str, str | None]:
    return {cell.record.strategy: cell.record.reason for cell in made.cells}


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        read_plan(path, Machine(cores=allowed_cores()), overrides)
    (found,) = caught.value.mistakes
    return str(found)


def test_a_model_with_seams_is_sharded_and_cut_into_stages_of_equal_work(scenario, capsys):
    made = plan(scenario)
    assert set(reasons(made).values()) == {None}
    stages = next(cell.record.layout for cell in made.cells if cell.record.strategy == "model_parallel")
    assert stages == "2 processes, embed+block 0–2 43% | block 3+head 57%; 4 micro-batches"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("recurrent", "it has no modules embed and head"),
        ("tied", "embed and head share parameters"),
        ("twice", "embed → blocks → head does not give its own logits"),
        ("widening", "block 0 makes shape (2, 8, 32) of shape (2, 8, 16), and must keep the shape"),
    ],
)
def test_a_model_without_seams_has_those_that_take_it_whole_and_the_others_say_why_not(scenario, function, why):
    found = reasons(plan(scenario, function, "strategies=[single, ddp, fsdp, tensor_parallel, model_parallel]"))
    assert (found["single"], found["ddp"], found["fsdp"]) == (None, None, None)
    assert found["model_parallel"] == f"no embed → blocks → head in the model of models/brought.py:{function}: {why}"
    assert found["tensor_parallel"] == "a custom model has no tensor-parallel plan"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("absent.py:build", "absent.py cannot be read: No such file or directory"),
        ("models:build", "models cannot be imported: ModuleNotFoundError: No module named 'models'"),
        ("./models:build", "models cannot be read: it is not a regular file but a folder"),
        ("~no-such-user-here/m.py:build", "~no-such-user-here/m.py cannot be read: Could not determine home directory"),
        ("no_such_package.models:build", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("models/broken.py:build", "models/broken.py cannot be imported: SyntaxError: "),
        ("models/brought.py:absent", "models/brought.py has no function absent"),
        ("models/brought.py:not_a_function", "not_a_function in models/brought.py is not a function"),
        ("models/brought.py:raising", "models/brought.py:raising cannot be built: ValueError: no model today"),
        ("models/brought.py:leaving", "models/brought.py:leaving cannot be built: SystemExit: 3"),
        ("models/brought.py:without_sizes", "cannot be built: TypeError: without_sizes() got an unexpected keyword"),
        ("models/brought.py:no_module", "models/brought.py:no_module returned a dict instead of a torch.nn.Module"),
        ("models/brought.py:no_parameters", "returned a model without parameters to train"),
        (
            "models/brought.py:wrong_vocabulary",
            "gives shape (2, 8, 65) for token ids of shape (2, 8); "
            "logits must have the shape (2, 8, 64): batch, seq_len, vocab_size",
        ),
        ("models/brought.py:idle", "returned a model whose logits do not depend on spare: leave such parameters out"),
        ("models/brought.py:one_logit", "gives shape (2, 512) for token ids of shape (2, 8)"),
        ("models/brought.py:pair", "gives a tuple for token ids of shape (2, 8)"),
        ("models/brought.py:lazy", "lazy returned a model whose head.weight has no shape yet: run a lazy module once"),
        ("models/brought.py:on_meta", "on_meta returned a model whose embed.weight is on device meta: build it with"),
        (
            "models/brought.py:cut",
            "gives shape (4, 8, 64) for token ids of shape (16, 8); logits must have the shape (16, 8, 64)",
        ),
        ("models/brought.py:halved", "gives logits of torch.bfloat16 on device cpu; they must be torch.float32"),
        ("models/brought.py:detached", "returned a model whose logits carry no gradient to any parameter"),
        ("models/brought.py:infinite", "returned a model whose loss is nan before any training"),
        ("models/brought.py:one_way", "models/brought.py:one_way cannot be trained: NotImplementedError: no gradient"),
        ("models/brought.py:gone", "examined: the process that builds it ended by itself with exit code 0"),
        ("models/brought.py:crashing", "examined: the process that builds it was killed by SIGSEGV"),
        ("models/brought.py:interrupting", "of models/brought.py:interrupting cannot be examined: KeyboardInterrupt"),
        ("models/brought.py:forking", "examined: the process that builds it ended by itself with exit code 7"),
        ("models/brought.py:confused", "the model of models/brought.py:confused cannot be run: RuntimeError: Tensors"),
    ],
)
def test_everything_that_can_go_wrong_is_a_sentence_with_its_line(scenario, build, message):
    (scenario.parent / "models" / "broken.py").write_text("def build(:\n")
    scenario.write_text(SCENARIO.replace("models/brought.py:seamed", build))
    found = mistake(scenario)
    assert found.startswith(f"{scenario}:5: workloads.mine.model.build: ")
    assert message in found
    assert "\n" not in found


def test_a_model_that_is_never_built_ends_with_all_that_it_has_started(scenario, monkeypatch):
    monkeypatch.setattr(examination, "DEADLINE_S", 20.0)
    monkeypatch.setenv("OFFSPRING", OFFSPRING)
    found = mistake(scenario, "workloads.mine.model.build=models/brought.py:hanging")
    assert found.endswith("cannot be examined: building it and taking a training step took more than 20 s")
    wait_for(lambda: not offspring(), "the end of what the model's code has started")


def test_threads_that_a_models_code_leaves_are_not_waited_for(scenario):
    assert set(reasons(plan(scenario, "threaded")).values()) == {None}


@pytest.mark.parametrize(
    ("limits", "global_batch", "tried"),
    [
        ({}, 300, 300),
        ({}, 1, 1),
        ({"MAX_LOGITS": 8 * 64 * 100}, 300, 100),
        ({"MAX_LOGITS": 1}, 300, 2),
        ({"MAX_OPERATIONS": 6 * 2 * 64 * 4 * 8 * 50}, 300, 50),
    ],
)
def test_of_a_global_batch_as_much_is_tried_as_takes_seconds(monkeypatch, limits, global_batch, tried):
    for name, limit in limits.items():
        monkeypatch.setattr(probe, name, limit)
    batches = []

    class Recording(nn.Sequential):
        def forward(self, tokens):
            batches.append((len(tokens), self.training))
            return super().forward(tokens)

    def build(*, vocab_size, seq_len):
        return Recording(nn.Embedding(vocab_size, 4), nn.Linear(4, vocab_size, bias=False))

    with torch.random.fork_rng(devices=[]):
        assert probe.Probe("x.py:build", 64, 8).examine(build, {}, global_batch) == "it has no modules embed and head"
    assert batches == [(2, False), (tried, True)]


def test_the_examination_of_a_model_imports_no_torch_here(scenario):
    script = (
        "import sys; from pathlib import Path; from parbench.plan.reading import read_scenario; "
        f"read_scenario(Path({str(scenario)!r})); print([name for name in sys.modules if name == 'torch'])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("build", ["brought.py", "brought.py:", ":build", "brought.py:two words"])
def test_a_build_that_is_no_file_and_function_is_a_mistake(scenario, build):
    assert "workloads.mine.model.build: must match pattern" in mistake(
        scenario, f'workloads.mine.model.build="{build}"'
    )


def test_sizes_of_the_workload_are_no_options(scenario):
    assert "vocab_size is not an option" in mistake(scenario, "workloads.mine.model.options={vocab_size: 3}")


def test_what_is_found_is_not_for_people_to_write(scenario):
    found = mistake(scenario, "workloads.mine.model.found={sha256: x}")
    assert found.endswith("workloads.mine.model.found: is filled in by parbench; leave it out")


def test_options_reach_the_function_and_lists_of_them_make_a_matrix(scenario):
    made = plan(scenario, "seamed", "workloads.mine.model.options={layers: [2, 3]}", "strategies=[model_parallel]")
    stages = {cell.record.workload: cell.record.layout for cell in made.cells}
    assert sorted(stages) == ["mine(layers=2)", "mine(layers=3)"]
    assert "embed+block 0–1 " in stages["mine(layers=2)"]


def test_the_key_follows_the_files_content_and_not_its_place(scenario, tmp_path):
    first = plan(scenario).cells[0].record.key
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(scenario.parent / "models", elsewhere / "models")
    shutil.copy(scenario, elsewhere)
    assert plan(elsewhere / scenario.name).cells[0].record.key == first
    with (scenario.parent / "models" / "brought.py").open("a") as file:
        file.write("# changed\n")
    assert plan(scenario).cells[0].record.key != first


def test_reading_a_scenario_leaves_nothing_beside_the_file(scenario):
    plan(scenario)
    assert [path.name for path in (scenario.parent / "models").iterdir()] == ["brought.py"]


def test_a_module_is_found_by_its_name(scenario, monkeypatch):
    monkeypatch.syspath_prepend(str(scenario.parent / "models"))
    made = read_plan(scenario, Machine(cores=allowed_cores()), ["workloads.mine.model.build=brought:seamed"])
    assert set(reasons(made).values()) == {None}


def test_checkpointing_without_blocks_is_refused_with_the_reason(scenario):
    found = reasons(plan(scenario, "recurrent", "workloads.mine.activation_checkpointing=true"))
    assert set(found.values()) == {
        "no embed → blocks → head in the model of models/brought.py:recurrent: it has no modules embed and head"
    }


def test_a_head_that_may_look_at_several_tokens_takes_no_chunks(scenario):
    found = reasons(plan(scenario, "seamed", "workloads.mine.loss_chunks=2"))
    assert set(found.values()) == {
        "models of family custom have not been shown to have a head that works on each token alone, as loss_chunks "
        "needs it"
    }


def test_models_are_in_training_whenever_they_take_steps(scenario, launcher, tmp_path):
    """Also after they were validated: what ranks say to each other is counted in further steps."""
    made = plan(scenario, "strict", "strategies=[ddp]")
    spec = made.scenario.workloads["mine"]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=tmp_path)
    (cell,) = [each for each in made.runnable if each.record.strategy == "ddp"]
    task = Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1)
    trial = measure(made, task, corpus, tmp_path / task.folder_name, launcher, Origin("here"))
    assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
    assert trial.ranks[0].traffic is not None


@pytest.mark.parametrize("function", ["seamed", "recurrent", "frozen"])
def test_losses_match_the_reference(scenario, function, launcher, tmp_path):
    ddp = "ddp: {shard_optimizer: [false, true]}"
    made = plan(scenario, function, f"strategies=[single, data_parallel, {{{ddp}}}, fsdp, model_parallel]")
    spec = made.scenario.workloads["mine"]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=tmp_path)

    def launched(task: Task):
        trial = measure(made, task, corpus, tmp_path / task.folder_name, launcher, Origin("here"))
        assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
        return trial

    any_cell = made.runnable[0]
    reference = launched(Task(purpose="reference", cell=any_cell, key=any_cell.record.reference, round=0, models=1))
    strategies = set()
    for cell in made.runnable:
        trial = launched(Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1))
        assert parity_deviation(trial, reference) <= PARITY_TOLERANCE["fp32"], cell.record.id
        strategies.add(cell.record.strategy)
    staged = set() if function == "recurrent" else {"model_parallel"}
    assert strategies == {"single", "data_parallel", "ddp", "fsdp"} | staged


def test_stages_hand_on_half_precision_as_it_is(scenario, launcher, tmp_path):
    changes = ("precision=bf16", "phase=score", "models=1")
    made = plan(
        scenario,
        "seamed",
        *(f"workloads.mine.{change}" for change in changes),
        "strategies=[single, {model_parallel: {schedule: naive}}]",
    )
    spec = made.scenario.workloads["mine"]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=tmp_path)
    losses = []
    for cell in made.runnable:
        task = Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1)
        trial = measure(made, task, corpus, tmp_path / task.folder_name, launcher, Origin("here"))
        assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
        losses.append(job_losses(trial)[0])
    assert len(losses) == 2
    # The same products of the same numbers: nothing may be lost between the stages.
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_file_that_changes_after_the_plan_fails_its_trials_with_the_reason(scenario, launcher, tmp_path):
    made = plan(scenario)
    spec = made.scenario.workloads["mine"]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=tmp_path)
    (scenario.parent / "models" / "brought.py").write_text(BROUGHT.read_text() + "# changed\n")
    cell = made.runnable[0]
    task = Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1)
    trial = measure(made, task, corpus, tmp_path / "trial", launcher, Origin("here"))
    assert trial.status == "failed"
    assert "has changed since the scenario was read" in trial.reason


def test_a_mistake_ends_the_command_with_exit_code_2_and_no_traceback(scenario, parbench):
    ended = parbench("plan", scenario, "--set", "workloads.mine.model.build=models/brought.py:raising")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "cannot be built: ValueError: no model today" in ended.stderr


def test_the_example_runs_from_any_folder(parbench, tmp_path):
    small = [
        *("--set", "workloads.mixer.model.options={width: 16, layers: 2}", "--set", "workloads.mixer.seq_len=16"),
        *("--set", "devices={kind: cpu, counts: [2], oversubscribe: true}", "--set", "measure.window_s=0.01"),
        *("--set", "measure.deadline_s=600"),
        *("--rounds", "1", "--out", str(tmp_path / "run")),
    ]
    ended = parbench("run", EXAMPLE, *small)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(parbench("table", tmp_path / "run", "--format", "json").stdout)
    cells = rows["cells"] if isinstance(rows, dict) else rows
    assert {(cell["strategy"], cell["parity"]) for cell in cells} == {
        ("single", "reference"),
        ("ddp", "ok"),
        ("fsdp", "ok"),
        ("model_parallel", "ok"),
    }
