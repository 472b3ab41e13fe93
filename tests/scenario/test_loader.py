import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.data.sources import SyntheticTokens, TextFile
from parbench.errors import Mistake
from parbench.models.base import Family
from parbench.plan.reading import catalogue
from parbench.scenario.document import Document, parse_document
from parbench.scenario.loader import Catalogue, Draft, draft_scenario
from parbench.scenario.sentences import quote, suggest
from parbench.scenario.specs import CostSpec, OptimizerSpec, Options, Scenario
from parbench.strategies.model_parallel import PipelineOptions

CATALOGUE = catalogue()
GOOD = """\
workloads:
  lstm:
    model: {kind: lstm, layers: 2}
strategies: [single, ddp]
"""


def draft(text: str, overrides=(), known: Catalogue = CATALOGUE) -> Draft:
    return draft_scenario(parse_document(text, "file.yaml").override(overrides), known, default_name="from the file")


def good(text: str, overrides=()) -> Scenario:
    made = draft(text, overrides)
    assert made.mistakes == []
    return made.scenario


def mistakes_of(*overrides: str, text: str = GOOD) -> list[Mistake]:
    return draft(text, overrides).mistakes


def workload_text(**fields: str) -> str:
    """A scenario whose one workload has these fields, from line 4 on."""
    lines = [f"    {key}: {value}\n" for key, value in fields.items()]
    return "workloads:\n  w:\n    model: {kind: lstm}\n" + "".join(lines) + "strategies: [single]\n"


def strategy_text(*entries: str) -> str:
    """A scenario with these strategies, one a line, from line 4 on."""
    return "workloads:\n  w: {model: {kind: lstm}}\nstrategies:\n" + "".join(f"  - {entry}\n" for entry in entries)


def labels(*entries: str) -> list[str]:
    return [strategy.label for strategy in good(strategy_text(*entries)).strategies]


def test_all_that_is_left_out_has_its_default():
    scenario = good(GOOD)
    assert (scenario.name, scenario.description, scenario.scaling) == ("from the file", "", ("strong",))
    assert (scenario.devices.kind, scenario.devices.counts, scenario.measure.rounds) == ("auto", "auto", 5)
    assert [strategy.name for strategy in scenario.strategies] == ["single", "ddp"]
    workload = scenario.workloads["lstm"]
    assert (workload.model.kind, workload.model.layers, workload.models) == ("lstm", 2, "auto")


def test_what_is_written_is_read():
    scenario = good(
        """
name: mine
description: Why?
workloads:
  a: {model: {kind: transformer, heads: 2}, data: {source: text, path: ~/book.txt}, global_batch: 8, models: 3}
  b: {model: {kind: lstm}, data: {source: synthetic, vocab_size: 99}, optimizer: {name: sgd, lr: 1, momentum: 0.9}}
strategies:
  - ddp:
  - model_parallel: {schedule: gpipe, micro_batches: 2}
devices: {kind: cpu, counts: 2, oversubscribe: true}
scaling: [weak, strong]
measure: {rounds: 2, warmup: 3, window_s: 1}
cost: {per_device_hour: 2, currency: EUR}
"""
    )
    assert (scenario.name, scenario.description) == ("mine", "Why?")
    assert scenario.workloads["a"].data == TextFile(path="~/book.txt")
    assert (scenario.workloads["a"].global_batch, scenario.workloads["a"].models) == (8, 3)
    assert scenario.workloads["b"].data == SyntheticTokens(vocab_size=99)
    assert scenario.workloads["b"].optimizer == OptimizerSpec(name="sgd", lr=1.0, momentum=0.9)
    assert scenario.strategies[1].options == PipelineOptions(schedule="gpipe", micro_batches=2)
    assert scenario.devices.counts == (2,)
    assert scenario.scaling == ("weak", "strong")
    assert (scenario.measure.rounds, scenario.measure.warmup, scenario.measure.window_s) == (2, 3, 1.0)
    assert scenario.cost == CostSpec(per_device_hour=2.0, currency="EUR")


def test_sections_with_nothing_in_them_count_as_left_out():
    assert good(GOOD + "devices:\nmeasure:\ncost:\n") == good(GOOD)


def test_every_mistake_is_told_at_once_with_its_line_and_path():
    text = """\
name: [a]
workload:
workloads:
  a:
    model: {kind: lstm, layer: 2}
    seq_len: long
    optimizer: {lr: -1}
  b: {model: {kind: gru}}
strategies:
  - sinlge
  - model_parallel: {schedule: gpip}
devices: {count: [1]}
measure: {rounds: 0}
scaling: strongly
"""
    told = sorted((mistake.source, mistake.line, mistake.path) for mistake in draft(text).mistakes)
    assert told == [
        ("file.yaml", 1, "name"),
        ("file.yaml", 2, "workload"),
        ("file.yaml", 5, "workloads.a.model.layer"),
        ("file.yaml", 6, "workloads.a.seq_len"),
        ("file.yaml", 7, "workloads.a.optimizer.lr"),
        ("file.yaml", 8, "workloads.b.model.kind"),
        ("file.yaml", 10, "strategies.0"),
        ("file.yaml", 11, "strategies.1.model_parallel.schedule"),
        ("file.yaml", 12, "devices.count"),
        ("file.yaml", 13, "measure.rounds"),
        ("file.yaml", 14, "scaling"),
    ]


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("stragegies=[]", "stragegies", "unknown key; did you mean 'strategies'?"),
        ("workloads.lstm.globl_batch=8", "workloads.lstm.globl_batch", "unknown key; did you mean 'global_batch'?"),
        ("workloads.lstm.model.layrs=8", "workloads.lstm.model.layrs", "unknown key; did you mean 'layers'?"),
        (
            "workloads.lstm.model.heads=8",
            "workloads.lstm.model.heads",
            "unknown key; known are kind, vocab_size, preset, layers, d_model",
        ),
        (
            "workloads.lstm.optimizer.weigth_decay=0.1",
            "workloads.lstm.optimizer.weigth_decay",
            "unknown key; did you mean 'weight_decay'?",
        ),
        (
            "workloads.lstm.data={source: synthetic, vocab_sise: 9}",
            "workloads.lstm.data.vocab_sise",
            "unknown key; did you mean 'vocab_size'?",
        ),
        ("devices.core_per_device=2", "devices.core_per_device", "unknown key; did you mean 'cores_per_device'?"),
        ("measure.round=2", "measure.round", "unknown key; did you mean 'rounds'?"),
        (
            "strategies.0={model_parallel: {micro_batch: 2}}",
            "strategies.0.model_parallel.micro_batch",
            "unknown key; did you mean 'micro_batches'?",
        ),
        ("strategies.0={data_parallel: {x: 2}}", "strategies.0.data_parallel.x", "unknown key; known are none"),
        ("strategies.0=dpp", "strategies.0", "there is no strategy 'dpp'; did you mean 'ddp'?"),
        (
            "workloads.lstm.model.kind=transfomer",
            "workloads.lstm.model.kind",
            "there is no model family 'transfomer'; did you mean 'transformer'?",
        ),
        (
            "workloads.lstm.model.kind=5",
            "workloads.lstm.model.kind",
            "there is no model family 5; known are custom, huggingface, llama, lstm, moe, transformer",
        ),
    ],
)
def test_a_name_that_nobody_knows_is_answered_with_the_nearest(override, path, message):
    found = {mistake.path: mistake for mistake in mistakes_of(override)}
    assert found[path] == Mistake(f"--set {override.partition('=')[0]}", None, path, message)


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("workloads.lstm.seq_len=0", "workloads.lstm.seq_len", "must be greater than or equal to 1; got 0"),
        ("workloads.lstm.seq_len=64.0", "workloads.lstm.seq_len", "must be integer; got 64.0"),
        ("workloads.lstm.seq_len='64'", "workloads.lstm.seq_len", "must be integer; got '64'"),
        ("workloads.lstm.seq_len=true", "workloads.lstm.seq_len", "must be integer; got True"),
        ("workloads.lstm.seq_len=[]", "workloads.lstm.seq_len", "must be integer; got []"),
        ("workloads.lstm.seq_len={a: 1}", "workloads.lstm.seq_len", "must be integer; got {'a': 1}"),
        ("workloads.lstm.models=many", "workloads.lstm.models", "must be 'auto'; got 'many'"),
        ("workloads.lstm.optimizer.lr=.nan", "workloads.lstm.optimizer.lr", "got nan"),
        ("workloads.lstm.optimizer.lr=.inf", "workloads.lstm.optimizer.lr", "must be a finite number; got inf"),
        ("workloads.lstm.optimizer=adam", "workloads.lstm.optimizer", "must be a mapping; got 'adam'"),
        ("workloads.lstm.optimizer.momentum=0.9", "workloads.lstm.optimizer", "momentum belongs to sgd; adam has none"),
        ("workloads.lstm={model: {kind: lstm}, phase: generate, loss_chunks: 2}", "workloads.lstm", "has no loss"),
        (
            "workloads.lstm.precision=fp7",
            "workloads.lstm.precision",
            "must be 'fp32', 'tf32', 'bf16' or 'fp16'; got 'fp7'",
        ),
        ("workloads.lstm.data={path: a}", "workloads.lstm.data", "needs the key 'source'"),
        ("workloads.lstm.data={source: web}", "workloads.lstm.data", "'source' must be one of"),
        ("workloads.lstm.data={source: text}", "workloads.lstm.data.path", "is required"),
        ("workloads.lstm.data={source: text, path: ''}", "workloads.lstm.data.path", "must have at least 1 character"),
        ("workloads.lstm.data={source: {a: 1}}", "workloads.lstm.data", "'source' must be one of"),
        (
            "workloads.lstm.model={layers: 2}",
            "workloads.lstm.model",
            "a mapping with a kind (custom, huggingface, llama, lstm, moe, transformer)",
        ),
        (
            "workloads.lstm.model=lstm",
            "workloads.lstm.model",
            "a mapping with a kind (custom, huggingface, llama, lstm, moe, transformer)",
        ),
        (
            "workloads.lstm.model={kind: transformer, heads: 3}",
            "workloads.lstm.model",
            "d_model 256 does not divide into 3 heads",
        ),
        ("workloads.lstm=lstm", "workloads.lstm", "must be a mapping such as"),
        ("workloads.lstm=", "workloads.lstm", "must be a mapping such as"),
        ("workloads=[lstm]", "workloads", "is required: a mapping"),
        ("workloads={}", "workloads", "at least one"),
        (f"workloads.{'x' * 101}={{model: {{kind: lstm}}}}", f"workloads.{'x' * 101}", "has 1 to 100 characters"),
        ("strategies=ddp", "strategies", "is required: a list"),
        ("strategies=[]", "strategies", "at least one strategy"),
        ("strategies.0=", "strategies.0", "must be a strategy's name"),
        ("strategies.0=5", "strategies.0", "must be a strategy's name"),
        ("strategies.0={ddp: , single: }", "strategies.0", "must be a strategy's name"),
        ("strategies.0={ddp: fast}", "strategies.0.ddp", "options must be a mapping; got 'fast'"),
        (
            "strategies.0={model_parallel: {micro_batches: 0}}",
            "strategies.0.model_parallel.micro_batches",
            "greater than 0",
        ),
        (
            "strategies.0={model_parallel: {schedule: naive, micro_batches: 2}}",
            "strategies.0.model_parallel",
            "schedule naive has one micro-batch",
        ),
        ("devices=cpu", "devices", "must be a mapping; got 'cpu'"),
        ("devices.kind=gpu", "devices.kind", "must be 'auto', 'cpu' or 'cuda'; got 'gpu'"),
        ("devices.counts=[]", "devices.counts", "must have at least 1 item"),
        ("devices.counts=[1, 0]", "devices.counts.1", "must be greater than 0; got 0"),
        ("devices.counts=many", "devices.counts", "must be a list; got 'many'"),
        ("devices.counts=true", "devices.counts", "must be integer; got True"),
        ("devices.oversubscribe=yes", "devices.oversubscribe", "must be boolean; got 'yes'"),
        ("measure.rounds=[1, 2]", "measure.rounds", "must be integer; got [1, 2]"),
        ("measure.deadline_s=0", "measure.deadline_s", "must be greater than 0; got 0"),
        ("cost=2.5", "cost", "must be a mapping; got 2.5"),
        ("cost={}", "cost.per_device_hour", "is required"),
        ("cost={per_device_hour: 0}", "cost.per_device_hour", "must be a price above zero, such as 2.50; got 0"),
        ("cost={per_device_hour: .inf}", "cost.per_device_hour", "must be a price above zero, such as 2.50; got inf"),
        ("cost={per_device_hour: 2 USD}", "cost.per_device_hour", "such as 2.50; got '2 USD'"),
        ("cost={per_device_hour: [1, 2]}", "cost.per_device_hour", "such as 2.50; got [1, 2]"),
        ("cost={per_device_hour: 1, currency: 5}", "cost.currency", "of at most 10 characters; got 5"),
        ("cost={per_hour: 1}", "cost.per_hour", "unknown key; did you mean 'per_device_hour'?"),
        ("scaling=[strong, strong]", "scaling", "must be strong, weak or [strong, weak]"),
        ("scaling=[]", "scaling", "must be strong, weak or [strong, weak]"),
        ("scaling={strong: weak}", "scaling", "must be strong, weak or [strong, weak]"),
        ("scaling=[[strong]]", "scaling", "must be strong, weak or [strong, weak]"),
        ("name=5", "name", "must be text of at most 10,000 characters; got 5"),
        (f"description={'x' * 10_001}", "description", "must be text of at most 10,000 characters"),
    ],
)
def test_a_value_that_cannot_be_is_refused(override, path, words):
    found = mistakes_of(override)
    assert {mistake.source for mistake in found} == {f"--set {override.partition('=')[0]}"}
    assert any(mistake.path.startswith(path) and words in mistake.message for mistake in found), found


def test_a_workload_that_is_not_there_is_not_made_by_a_part_of_it():
    (mistake,) = mistakes_of("workloads.nope.seq_len=3")
    assert (mistake.source, mistake.path) == ("--set workloads.nope.seq_len", "workloads.nope")
    assert mistake.message.startswith("there is no workload 'nope'; known are ")
    (mistake,) = mistakes_of("workloads.nope.model={kind: lstm}", "workloads.nope.seq_len=3")
    assert mistake.message.startswith("there is no workload 'nope'")
    whole = ("workloads.new={model: {kind: lstm}}", "workloads.new.optimizer.lr=1e-2")
    made = draft("strategies: [single]\n", whole)
    assert (made.mistakes, list(made.scenario.workloads)) == ([], ["new"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("window_s: 9.0\n  deadline_s: 8.0", (4, "measure.window_s")),
        ("deadline_s: 8.0\n  window_s: 8.0", (5, "measure.window_s")),
        ("rounds: 2\n  deadline_s: 1.0", (5, "measure.deadline_s")),
    ],
)
def test_a_window_that_fills_the_deadline_is_refused_where_it_was_written(text, place):
    before, after = "workloads:\n  a: {model: {kind: lstm}}\nmeasure:\n  ", "\nstrategies: [single]\n"
    (mistake,) = mistakes_of(text=f"{before}{text}{after}")
    assert (mistake.line, mistake.path) == place
    assert "leaves no time for the warm-up before it: it must be less than deadline_s" in mistake.message


def test_a_window_shorter_than_the_deadline_is_none():
    assert mistakes_of("measure.window_s=7.9", "measure.deadline_s=8") == []


@pytest.mark.parametrize("key", ["workloads", "strategies"])
def test_what_a_scenario_cannot_do_without_is_asked_for(key):
    (mistake,) = mistakes_of(f"{key}=")
    assert (mistake.path, mistake.message.partition(":")[0]) == (key, "is required")
    empty = draft("name: nothing\n").mistakes
    assert [(mistake.line, mistake.path) for mistake in empty] == [(1, "workloads"), (1, "strategies")]


def test_what_is_right_is_read_beside_what_is_wrong():
    made = draft(GOOD, ["measure.rounds=none", "workloads.other={model: {kind: gru}}", "strategies.1=dpp"])
    assert len(made.mistakes) == 3
    assert list(made.scenario.workloads) == ["lstm"]
    assert [strategy.name for strategy in made.scenario.strategies] == ["single"]


def test_a_key_with_mistakes_counts_as_left_out():
    made = draft(
        GOOD, ["name=5", "description=Why?", "measure.rounds=none", "measure.seed=3", "exclude=[{devices: 2}]"]
    )
    assert {mistake.path for mistake in made.mistakes} == {"name", "measure.rounds"}
    scenario = made.scenario
    assert (scenario.name, scenario.description) == ("from the file", "Why?")
    assert (scenario.measure.rounds, scenario.measure.seed) == (5, 0)
    assert scenario.exclude == ({"devices": (2,)},)


def test_a_plug_in_that_could_not_be_imported_is_named_with_its_reason():
    known = Catalogue(
        families=CATALOGUE.families, options=CATALOGUE.options, broken={"zero": "ImportError: x", "gru": "OSError: y"}
    )
    text = "workloads: {a: {model: {kind: gru}}}\nstrategies: [zero]\n"
    assert {mistake.message for mistake in draft(text, known=known).mistakes} == {
        "strategy 'zero' could not be imported: ImportError: x",
        "model family 'gru' could not be imported: OSError: y",
    }


def test_a_list_makes_a_workload_for_each_value_named_after_it():
    workloads = good(workload_text(seq_len="[32, 64]", optimizer="{lr: [1e-3, 1e-2]}")).workloads
    assert {name: (spec.seq_len, spec.optimizer.lr) for name, spec in workloads.items()} == {
        "w(seq_len=32, lr=0.001)": (32, 0.001),
        "w(seq_len=32, lr=0.01)": (32, 0.01),
        "w(seq_len=64, lr=0.001)": (64, 0.001),
        "w(seq_len=64, lr=0.01)": (64, 0.01),
    }


def test_a_list_in_the_model_makes_workloads_too():
    workloads = good(GOOD, ["workloads.lstm.model={kind: [lstm, transformer], layers: [1, 2]}"]).workloads
    assert {name: (spec.model.kind, spec.model.layers) for name, spec in workloads.items()} == {
        f"lstm(kind={kind}, layers={layers})": (kind, layers) for kind in ("lstm", "transformer") for layers in (1, 2)
    }


def test_a_learning_rate_for_each_model_is_no_matrix():
    workloads = good(workload_text(models="2", optimizer="{lr_per_model: [1e-3, 1e-2]}")).workloads
    assert [workloads["w"].optimizer.lr_of(job) for job in (0, 1)] == [0.001, 0.01]


def test_values_that_do_not_fit_each_other_are_told_where_they_meet():
    (mistake,) = draft(workload_text(models="3", optimizer="{lr_per_model: [1, 2]}")).mistakes
    assert (mistake.line, mistake.path) == (2, "workloads.w")
    assert mistake.message == "optimizer.lr_per_model has 2 values, so models must be 2"


def test_a_wrong_value_of_a_matrix_is_told_at_its_key_and_the_others_are_read():
    made = draft(workload_text(seq_len="[32, long]"))
    assert [(mistake.line, mistake.path) for mistake in made.mistakes] == [(4, "workloads.w.seq_len")]
    assert "got 'long'" in made.mistakes[0].message
    assert list(made.scenario.workloads) == ["w(seq_len=32)"]


def test_two_workloads_cannot_have_one_name():
    (twice,) = draft(workload_text(seq_len="[32, 64, 32]")).mistakes
    assert (twice.path, twice.message) == ("workloads.w", "the variant w(seq_len=32) stands here twice; keep one")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (workload_text(**{f"unknown{index}": [*range(10)] for index in range(20)}), "workloads.w"),
        (strategy_text(f"model_parallel: {{micro_batches: {[*range(1, 1002)]}}}"), "strategies.0"),
    ],
    ids=["workload", "strategy"],
)
def test_a_matrix_that_is_too_large_to_be_meant_is_refused(text, path):
    (mistake,) = draft(text).mistakes
    assert (mistake.path, mistake.message.partition(";")[0]) == (path, "its lists make more than 1,000 variants")


def test_a_list_makes_a_strategy_for_each_value_labelled_after_it():
    text = strategy_text("model_parallel: {schedule: [gpipe, 1f1b], micro_batches: [4, 8]}")
    assert {strategy.label: strategy.options for strategy in good(text).strategies} == {
        f"model_parallel(schedule={schedule}, micro_batches={parts})": PipelineOptions(
            schedule=schedule, micro_batches=parts
        )
        for schedule in ("gpipe", "1f1b")
        for parts in (4, 8)
    }


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["single", "ddp"], ["single", "ddp"]),
        (["model_parallel: {schedule: gpipe}"], ["model_parallel"]),
        (["model_parallel", "model_parallel: {schedule: gpipe}"], ["model_parallel", "model_parallel(schedule=gpipe)"]),
        (
            [
                "model_parallel: {schedule: gpipe, micro_batches: 4}",
                "model_parallel: {schedule: 1f1b, micro_batches: 4}",
            ],
            ["model_parallel(schedule=gpipe)", "model_parallel(schedule=1f1b)"],
        ),
    ],
)
def test_a_label_tells_only_what_tells_variants_apart(entries, expected):
    assert labels(*entries) == expected


@pytest.mark.parametrize(
    "entries",
    [
        ["ddp", "ddp"],
        ["ddp", "ddp:"],
        ["ddp", "ddp: {}"],
        ["model_parallel", "model_parallel: {schedule: 1f1b}"],
        ["single", "model_parallel: {schedule: [gpipe, gpipe]}"],
    ],
)
def test_one_strategy_with_the_same_options_twice_is_a_mistake(entries):
    (mistake,) = draft(strategy_text(*entries)).mistakes
    assert (mistake.line, mistake.path) == (5, "strategies.1")
    assert mistake.message.endswith("stands here twice with the same options; keep one")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("strong", ("strong",)), ("weak", ("weak",)), ("[weak]", ("weak",)), ("[strong, weak]", ("strong", "weak"))],
)
def test_scaling_is_one_kind_or_several(text, expected):
    assert good(GOOD + f"scaling: {text}\n").scaling == expected


def test_a_workload_may_be_called_like_a_strategy():
    made = draft("workloads: {ddp: {model: {kind: lstm}}}\nstrategies: [ddp]\n")
    assert made.workload_paths == {"ddp": ("workloads", "ddp")}
    assert made.strategy_paths == {"ddp": ("strategies", 0)}


def test_a_validator_of_a_plug_in_speaks_for_itself():
    class Odd(Options):
        size: int = 1

        def model_post_init(self, context):
            assert self.size % 2, "size must be odd"

    known = Catalogue(families=CATALOGUE.families, options={"odd": Odd})
    (mistake,) = draft(strategy_text("odd: {size: 2}"), known=known).mistakes
    assert mistake.path == "strategies.0.odd"
    assert "size must be odd" in mistake.message


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("ab", ["abc", "xyz"], "; did you mean 'abc'?"),
        ("q", ["abc", "xyz"], "; known are abc, xyz"),
        ("q", [], "; known are none"),
    ],
)
def test_the_nearest_name(name, known, expected):
    assert suggest(name, known) == expected


def test_a_long_value_is_shown_short():
    assert quote("x" * 58) == repr("x" * 58)
    assert len(quote("x" * 59)) == 58
    assert quote("x" * 59).endswith("x…")


KEYS = st.sampled_from([*Scenario.model_fields, *Family.model_fields, "lstm", "ddp", "model_parallel", "w", "lr", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(
        ["auto", "lstm", "transformer", "cpu", "ddp", "model_parallel", "strong", "text", "synthetic", "1f1b", "x"]
    )
)
WORDS = """kind layers model data source path seq_len global_batch models optimizer name lr lr_per_model schedule
micro_batches counts rounds warmup typo"""
FIELDS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | KEYS, inner, max_size=4),
    max_leaves=12,
)
WORKLOADS = st.dictionaries(st.sampled_from(["a", "b"]), st.fixed_dictionaries({"model": VALUES}, optional={}) | VALUES)
STRATEGIES = st.lists(st.dictionaries(st.sampled_from(["ddp", "model_parallel"]), VALUES, max_size=1) | VALUES)
SCENARIOS = st.dictionaries(KEYS, VALUES, max_size=5) | st.fixed_dictionaries(
    {"workloads": WORKLOADS, "strategies": STRATEGIES},
    optional=dict.fromkeys(("name", "devices", "scaling", "measure"), VALUES),
)


@given(SCENARIOS)
def test_any_data_is_a_scenario_or_has_mistakes_and_never_another_error(data):
    made = draft_scenario(Document(data, "file.yaml"), CATALOGUE, default_name="any")
    assert made.mistakes or (made.scenario.workloads and made.scenario.strategies)
    assert all(mistake.message for mistake in made.mistakes)
    names = [strategy.label for strategy in made.scenario.strategies]
    assert len(set(names)) == len(names)
