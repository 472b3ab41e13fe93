"""Models of transformers from their configs: what can go wrong, and real runs."""

import importlib.util
from pathlib import Path

import pytest
import torch

from parbench.campaign.tasks import Origin, Task, measure
from parbench.data.corpus import prepare
from parbench.errors import ScenarioError
from parbench.models import huggingface
from parbench.models.base import FAMILIES
from parbench.models.huggingface import HuggingFace
from parbench.plan.cells import Plan
from parbench.plan.reading import read_plan
from parbench.results.deviations import PARITY_TOLERANCE, parity_deviation
from parbench.system.cpus import allowed_cores
from parbench.system.devices import Machine
from parbench.training.build import build_model

SCENARIO = """\
workloads:
  hub:
    model:
      kind: huggingface
      architecture: gpt2
      config: {n_layer: 2, n_embd: 32, n_head: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 16
strategies: [single, ddp, fsdp, model_parallel, tensor_parallel]
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
"""
ARCHITECTURES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
    "llama": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "bert": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "is_decoder": True,
    },
}

needs_the_library = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="models of transformers need the extra transformers"
)


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "hub.yaml"
    path.write_text(SCENARIO)
    return path


def plan(path: Path, *overrides: str) -> Plan:
    return read_plan(path, Machine(cores=allowed_cores()), overrides)


def mistake(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        plan(path)
    (found,) = caught.value.mistakes
    return str(found)


def built(architecture: str, **kwargs):
    family = HuggingFace(architecture=architecture, config=ARCHITECTURES[architecture])
    return build_model(family, vocab_size=64, seq_len=8, seed="0/0", **kwargs)


@needs_the_library
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_gives_logits_that_know_no_later_token(architecture):
    model, tokens = built(architecture), torch.arange(24).reshape(3, 8)
    changed = tokens.clone()
    changed[:, 5:] += 1
    before, after = model(tokens), model(changed)
    assert before.shape == (3, 8, 64)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-6)


@needs_the_library
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_computes_the_same_each_time_it_trains(architecture):
    model, tokens = built(architecture), torch.arange(24).reshape(3, 8)
    assert model.training
    assert torch.equal(model(tokens), model(tokens))
    again = dict(built(architecture).named_parameters())
    assert all(torch.equal(value, again[name]) for name, value in model.named_parameters())


@needs_the_library
def test_blocks_are_placed_first_and_then_the_rest():
    parts = []
    built("llama", on_part=lambda part, name: parts.append((type(part).__name__, name)))
    assert parts == [("LlamaDecoderLayer", "block"), ("LlamaDecoderLayer", "block"), ("CausalLM", "rest")]


@needs_the_library
def test_checkpointing_changes_no_gradient():
    tokens = torch.arange(24).reshape(3, 8)
    plain, again = built("gpt2"), built("gpt2")
    again.checkpoint_blocks(True)
    for model in (plain, again):
        model(tokens).square().mean().backward()
    checkpointed = dict(again.named_parameters())
    for name, value in plain.named_parameters():
        assert torch.allclose(value.grad, checkpointed[name].grad, atol=1e-6), name


@needs_the_library
@pytest.mark.parametrize(
    ("written", "instead", "line", "field", "message"),
    [
        ("gpt2", "gpt22", 5, "architecture", "has no causal language model of type 'gpt22'; did you mean gpt2"),
        ("gpt2", "t5", 5, "architecture", "has no causal language model of type 't5'"),
        ("n_head: 2", "n_head: 5", 6, "config", "transformers cannot build gpt2: ValueError: "),
        ("architecture: gpt2", "architecture: gpt2\n      library: 5.0.0", 6, "library", "is filled in by parbench"),
        ("n_head: 2", "n_hed: 2", 6, "config", "a config of gpt2 has no n_hed; did you mean n_head"),
        ("n_head: 2", "vocab_size: 2", 6, "config", "vocab_size cannot be set here"),
        ("n_head: 2", "auto_map: {}", 6, "config", "a config of gpt2 has no auto_map"),
        ("n_head: 2", "n_layer: many", 6, "config", "Field 'n_layer' expected int, got str"),
        ("n_head: 2", "n_head: 2, n_positions: 4", 6, "config", "has 4 positions, fewer than seq_len 8"),
    ],
)
def test_what_cannot_be_built_is_a_sentence_with_its_line(scenario, written, instead, line, field, message):
    text = SCENARIO.replace("n_layer: 2, ", "") if "n_layer" in instead else SCENARIO
    scenario.write_text(text.replace(written, instead))
    found = mistake(scenario)
    assert found.startswith(f"{scenario}:{line}: workloads.hub.model.{field}: ")
    assert message in found


def test_without_the_library_the_extra_is_named(scenario, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "transformers" else find_spec(name, *more)
    )
    assert "huggingface" in FAMILIES.names()
    assert mistake(scenario) == (
        f"{scenario}:4: workloads.hub.model.kind: needs the transformers library: pip install 'parbench[transformers]'"
    )


ENCODER = """\
      config:
        num_hidden_layers: 2
        hidden_size: 32
        intermediate_size: 64
        num_attention_heads: 2
"""


@needs_the_library
@pytest.mark.parametrize(
    ("architecture", "line", "field", "message"),
    [
        ("bert", 5, "architecture", "bert is not causal: the logits of a token depend on later tokens, as "),
        ("roberta", 6, "config", "transformers cannot run roberta: TypeError: "),
    ],
)
def test_what_is_not_causal_or_cannot_run_is_refused(scenario, architecture, line, field, message):
    gpt2 = "      architecture: gpt2\n      config: {n_layer: 2, n_embd: 32, n_head: 2}\n"
    assert gpt2 in SCENARIO
    scenario.write_text(SCENARIO.replace(gpt2, f"      architecture: {architecture}\n{ENCODER}"))
    found = mistake(scenario)
    assert found.startswith(f"{scenario}:{line}: workloads.hub.model.{field}: {message}")
    if architecture == "bert":
        assert found.endswith("; choose a decoder such as gpt2, llama or qwen3, or set is_decoder: true in config")
        assert len(plan(scenario, "workloads.hub.model.config.is_decoder=true").runnable) == 3


@needs_the_library
def test_a_model_too_large_to_be_built_here_is_not_looked_at(scenario, monkeypatch):
    monkeypatch.setattr(huggingface, "MAX_CHECKED_PARAMETERS", 0)
    scenario.write_text(SCENARIO.replace("gpt2", "xlnet").replace("{n_layer: 2, n_embd: 32, n_head: 2}", "{}"))
    assert len(plan(scenario).runnable) == 3


@needs_the_library
def test_the_librarys_version_is_part_of_what_is_measured(scenario):
    transformers = pytest.importorskip("transformers", reason="models of transformers need the extra transformers")
    assert plan(scenario).cells[0].workload.model.library == transformers.__version__


@needs_the_library
@pytest.mark.parametrize("value", ["selective", "offloaded", "{every: 2}"])
def test_blocks_that_the_library_runs_cannot_be_chosen(scenario, value):
    made = plan(scenario, f"workloads.hub.activation_checkpointing={value}")
    assert {cell.record.reason for cell in made.cells} == {
        "models of family huggingface run their blocks themselves, so nothing of them can be chosen; "
        "set activation_checkpointing to full or none"
    }


@needs_the_library
def test_checkpointing_and_compiling_together_are_refused(scenario):
    made = plan(scenario, "workloads.hub.activation_checkpointing=true", "workloads.hub.compile=true")
    assert {cell.record.reason for cell in made.cells} == {
        "blocks of transformers cannot be both compiled and checkpointed; choose one"
    }


@needs_the_library
def test_losses_match_the_reference(scenario, launcher, tmp_path):
    made = plan(scenario)
    reasons = {cell.record.strategy: cell.record.reason for cell in made.cells if cell.record.reason}
    assert reasons == {
        "model_parallel": "a transformers model cannot be cut into stages: its forward pass is one piece of code",
        "tensor_parallel": "parbench has no tensor-parallel plan for transformers models",
    }
    spec = made.scenario.workloads["hub"]
    corpus = prepare(spec.data, seq_len=spec.seq_len, seed=0, folder=tmp_path)

    def launched(task: Task):
        trial = measure(made, task, corpus, tmp_path / task.folder_name, launcher, Origin("here"))
        assert trial.status == "ok", f"{trial.reason}\n{trial.log_tail}"
        return trial

    any_cell = made.runnable[0]
    reference = launched(Task(purpose="reference", cell=any_cell, key=any_cell.record.reference, round=0, models=1))
    strategies = []
    for cell in made.runnable:
        trial = launched(Task(purpose="measure", cell=cell, key=cell.record.key, round=0, models=1))
        assert parity_deviation(trial, reference) <= PARITY_TOLERANCE["fp32"], cell.record.id
        strategies.append(cell.record.strategy)
    assert strategies == ["single", "ddp", "fsdp"]
