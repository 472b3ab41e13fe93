import pytest

from parbench.errors import ScenarioError
from parbench.plan.reading import read_plan
from parbench.scenario.exclude import is_excluded
from parbench.system.devices import Machine

HERE = Machine(cores=((0,), (1,), (2,), (3,)))
SCENARIO = """
workloads:
  w:
    model: {kind: lstm, layers: 4, d_model: 8}
    data: {source: synthetic, vocab_size: 64}
    seq_len: [8, 16]
    precision: [fp32, bf16]
strategies: [single, ddp, local_sgd]
"""


@pytest.fixture
def plan(tmp_path):
    def make(rules):
        path = tmp_path / "s.yaml"
        path.write_text(f"{SCENARIO}{rules}")
        return read_plan(path, HERE)

    return make


def ids(made):
    return {cell.record.id for cell in made.cells}


def test_a_rule_leaves_out_what_matches_all_its_fields(plan):
    gone = ids(plan("")) - ids(plan("exclude: [{strategy: ddp, devices: [2, 4], precision: bf16}]"))
    assert gone == {f"w(seq_len={length}, precision=bf16)/ddp/{count}" for length in (8, 16) for count in (2, 4)}


def test_any_of_several_rules_is_enough_and_text_may_hold_wildcards(plan):
    left = ids(plan("exclude: [{workload: '*seq_len=8*'}, {precision: bf16}, {strategy: '[dl]*', devices: 4}]"))
    assert left == {
        f"w(seq_len=16, precision=fp32)/{rest}" for rest in ("single/1", "ddp/1", "ddp/2", "local_sgd/1", "local_sgd/2")
    }


def test_true_is_not_one():
    assert not is_excluded({"gradient_accumulation": 2, "compile": False}, [{"compile": (True,)}])
    assert is_excluded({"compile": True}, [{"compile": (True,)}])


def test_true_is_any_of_several_values_that_are_not_false():
    rule = {"activation_checkpointing": (True,)}
    found = {
        str(value): is_excluded({"activation_checkpointing": value}, [rule]) for value in (True, "selective", False)
    }
    assert found == {"True": True, "selective": True, "False": False}
    assert is_excluded({"activation_checkpointing": {"every": 2}}, [rule])
    assert not is_excluded({"activation_checkpointing": "selective"}, [{"activation_checkpointing": (False,)}])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("exclude: {strategy: ddp}", "exclude: must be a list of rules"),
        ("exclude: [ddp]", "exclude.0: must be a mapping such as"),
        ("exclude: [{}]", "exclude.0: must be a mapping such as"),
        ("exclude: [{stratgy: ddp}]", "exclude.0.stratgy: unknown key; did you mean 'strategy'?"),
        ("exclude: [{devices: two}]", "exclude.0.devices: must be int or a list; got 'two'"),
        ("exclude: [{compile: 1}]", "exclude.0.compile: must be bool or a list; got 1"),
    ],
)
def test_a_rule_that_cannot_be_is_a_mistake_with_its_place(plan, rules, message):
    with pytest.raises(ScenarioError) as caught:
        plan(rules)
    assert message in str(caught.value)
    assert "s.yaml:9" in str(caught.value)
