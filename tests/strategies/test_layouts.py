from collections import Counter, defaultdict
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.errors import Unsupported
from parbench.models.checkpointing import Every
from parbench.models.custom import Custom
from parbench.models.llama import Llama
from parbench.models.lstm import LSTM
from parbench.models.moe import MixtureOfExperts
from parbench.models.transformer import Transformer
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import STRATEGIES, Layout
from parbench.strategies.model_parallel import PipelineOptions
from parbench.system.devices import Devices

SMALL = st.integers(1, 6)


def workload(*, layers=4, batch=32, models="auto"):
    return WorkloadSpec(model=LSTM(layers=layers, d_model=8), global_batch=batch, models=models)


def gpt(**changes):
    return WorkloadSpec(model=Transformer(layers=4, d_model=16, heads=4), **changes)


def experts(count=8, **changes):
    return WorkloadSpec(model=MixtureOfExperts(layers=2, d_model=16, heads=4, experts=count), **changes)


def layout(name: str, count: int, *, kind="cpu", spec=None, **options) -> Layout:
    strategy = STRATEGIES[name]
    return strategy.layout(strategy.options_type(**options), spec or workload(), Devices(kind=kind, count=count))


def assert_shards_are_disjoint_and_complete(layout: Layout) -> None:
    """Every lane has every shard, held by equally many consecutive ranks; every rank is at one place."""
    places = [layout.coordinate(rank) for rank in range(layout.processes)]
    assert places == sorted(places)
    shards = defaultdict(Counter)
    for lane, shard in places:
        shards[lane][shard] += 1
    assert set(shards) == set(range(layout.lanes))
    for held in shards.values():
        assert set(held) == set(range(layout.data_shards))
        assert set(held.values()) == {layout.processes // layout.lanes // layout.data_shards}


@given(lanes=SMALL, shards=SMALL, parts=SMALL)
def test_every_rank_has_a_place_in_any_layout(lanes, shards, parts):
    made = Layout(processes=lanes * shards * parts, lanes=lanes, data_shards=shards)
    assert made.ranks_per_lane == shards * parts
    assert_shards_are_disjoint_and_complete(made)


@pytest.mark.parametrize("name", STRATEGIES.names())
@given(
    count=st.integers(1, 16), layers=st.integers(1, 16), batch=st.integers(1, 96), kind=st.sampled_from(["cpu", "cuda"])
)
def test_every_strategy_lays_a_batch_out_whole_over_all_devices(name, count, layers, batch, kind):
    with suppress(Unsupported):
        made = layout(name, count, kind=kind, spec=workload(layers=layers, batch=batch))
        assert made.devices == count
        assert batch % made.data_shards == 0
        assert_shards_are_disjoint_and_complete(made)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_runs_on_one_device(name):
    spec = experts() if name == "expert_parallel" else gpt()
    assert layout(name, 1, spec=spec).processes == 1


def test_ranks_of_one_shard_are_neighbours():
    made = Layout(processes=8, lanes=2, data_shards=2)
    assert [made.coordinate(rank) for rank in range(8)] == [
        *[(0, 0), (0, 0), (0, 1), (0, 1)],
        *[(1, 0), (1, 0), (1, 1), (1, 1)],
    ]


@pytest.mark.parametrize(
    "numbers",
    [
        {"processes": 0},
        {"processes": 1, "devices_per_process": 0},
        {"processes": 2, "data_shards": 0},
        {"processes": 2, "micro_batches": 0},
        {"processes": 2, "lanes": 0},
        {"processes": 4, "data_shards": 3},
        {"processes": 4, "lanes": 3},
        {"processes": 4, "lanes": 4, "data_shards": 4},
    ],
)
def test_a_layout_that_does_not_come_out_even_cannot_be_made(numbers):
    with pytest.raises(ValueError, match="of a layout"):
        Layout(**numbers)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("data_parallel", "cpu", Layout(processes=1, devices_per_process=4, emulated=True)),
        ("data_parallel", "cuda", Layout(processes=1, devices_per_process=4)),
        ("ddp", "cpu", Layout(processes=4, data_shards=4)),
        (
            *("model_parallel", "cpu"),
            Layout(
                processes=4,
                micro_batches=4,
                note="embed+block 0 12% | block 1 12% | block 2–3 25% | head 50%; 4 micro-batches",
                bubble=3 / 7,
            ),
        ),
        ("fsdp", "cuda", Layout(processes=4, data_shards=4)),
        ("local_sgd", "cuda", Layout(processes=4, data_shards=4)),
        ("task_pool", "cpu", Layout(processes=4, lanes=4, queued=True)),
    ],
)
def test_four_devices_under_each_strategy(name, kind, expected):
    assert layout(name, 4, kind=kind) == expected


@pytest.mark.parametrize(
    ("name", "options", "spec", "field", "reason"),
    [
        ("single", {}, workload(), None, "runs on one device only"),
        ("data_parallel", {}, workload(batch=30), "global_batch", "30 does not divide into 4 equal replica batches"),
        ("ddp", {}, workload(batch=30), "global_batch", "30 does not divide into 4 equal data shards"),
        ("fsdp", {"replicas": 3}, workload(), None, "3 replicas need a multiple of 3 devices, not 4"),
        ("fsdp", {"offload": "parameters"}, workload(), None, "and here they are there already"),
        ("model_parallel", {}, workload(layers=2), None, "2 blocks and the head are too few for 4 stages"),
        ("model_parallel", {}, workload(batch=30), "global_batch", "30 does not divide into 4 equal micro-batches"),
        (
            *("model_parallel", {"schedule": "gpipe", "micro_batches": 5}, workload()),
            *("global_batch", "32 does not divide into 5 equal micro-batches"),
        ),
        (
            *("model_parallel", {"schedule": "1f1b", "micro_batches": 2}, workload()),
            *("options.micro_batches", r"at least as many micro-batches \(2\) as ranks \(4\)"),
        ),
        ("task_pool", {}, workload(models=3), None, "needs at least 4 models"),
    ],
)
def test_what_cannot_be_laid_out_over_four_devices_says_why(name, options, spec, field, reason):
    with pytest.raises(Unsupported, match=reason) as caught:
        layout(name, 4, spec=spec, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "note"),
    [({}, "2 of 8 experts each"), ({"replicas": 2}, "4 of 8 experts each"), ({"replicas": 4}, "")],
)
def test_experts_are_spread_over_neighbours_and_the_batch_over_all(options, note):
    made = layout("expert_parallel", 4, spec=experts(), **options)
    assert made == Layout(processes=4, data_shards=4, note=note, traffic_varies=bool(note))


def test_what_experts_exchange_is_known_where_they_have_a_capacity():
    limited = experts()
    limited = limited.model_copy(update={"model": limited.model.model_copy(update={"capacity_factor": 1.0})})
    assert not layout("expert_parallel", 4, spec=limited).traffic_varies
    scoring = limited.model_copy(update={"phase": "score"})
    assert layout("expert_parallel", 4, spec=scoring).traffic_varies


@pytest.mark.parametrize(
    ("options", "spec", "field", "reason"),
    [
        ({}, gpt(), None, "model family transformer has no experts to spread"),
        ({}, experts(6), None, "6 experts do not divide over 4 devices; set replicas"),
        ({"replicas": 3}, experts(), None, "3 replicas need a multiple of 3 devices, not 4"),
        ({}, experts(global_batch=6), "global_batch", "6 does not divide into 4 equal data shards"),
        ({}, experts(compile=True), None, "torch.compile has not been shown to compile"),
    ],
)
def test_experts_that_cannot_be_spread_say_why(options, spec, field, reason):
    with pytest.raises(Unsupported, match=reason) as caught:
        layout("expert_parallel", 4, spec=spec, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("count", "nodes", "replicas", "note"),
    [
        (4, 1, 1, ""),
        (4, 1, 2, "2 replicas of 2 shards"),
        (4, 1, 4, "4 replicas of 1 shard"),
        (8, 2, 2, "2 replicas of 4 shards"),
        (8, 4, 2, "2 replicas of 4 shards across nodes"),
    ],
)
def test_a_layout_says_how_many_replicas_are_sharded_and_where(count, nodes, replicas, note):
    fsdp = STRATEGIES["fsdp"]
    made = fsdp.layout(fsdp.options_type(replicas=replicas), workload(), Devices(kind="cpu", count=count, nodes=nodes))
    assert made == Layout(processes=count, data_shards=count, note=note)


def models(count="auto", **changes):
    return WorkloadSpec(model=LSTM(layers=4, d_model=8), models=count, **changes)


@pytest.mark.parametrize(
    ("sharing", "expected", "words"),
    [
        (
            "time",
            Layout(processes=8, processes_per_device=4, lanes=8, queued=True),
            "8 processes, 4 on each device, 8 lanes",
        ),
        (
            "mps",
            Layout(processes=8, processes_per_device=4, mps=True, lanes=8, queued=True),
            "8 processes, 4 on each device, 8 lanes, through MPS",
        ),
        (
            "streams",
            Layout(processes=2, lanes=2, stacked=4, queued=True, note="a CUDA stream for each model"),
            "2 processes, 2 lanes, 4 models stacked, a CUDA stream for each model",
        ),
    ],
)
def test_eight_tasks_on_two_gpus_by_each_way_to_share_them(sharing, expected, words):
    made = layout("task_pool", 2, kind="cuda", spec=models(16), tasks_per_device=4, sharing=sharing)
    assert (made, made.in_words(), made.devices) == (expected, words, 2)


@pytest.mark.parametrize(
    ("options", "kind", "spec", "reason"),
    [
        ({"sharing": "mps"}, "cpu", models(), "sharing: mps is how models share a GPU; on CPU the kernel"),
        ({"sharing": "streams"}, "cpu", models(), "sharing: streams is how models share a GPU"),
        ({"sharing": "mps", "tasks_per_device": 1}, "cuda", models(), "one shares with nobody"),
        ({"sharing": "streams"}, "cuda", models(8, phase="generate"), "sharing: streams does not generate"),
        ({"sharing": "streams"}, "cuda", models(9), "9 models do not divide into groups of 2"),
        ({"sharing": "streams"}, "cuda", models(4), "a pool of 4 devices × 2 tasks needs at least 8 models"),
        ({"sharing": "streams"}, "cuda", models(8, length_per_model=(1.0,) * 8), "leave length_per_model out"),
        ({"sharing": "streams", "aggregate": "average"}, "cuda", models(), "aggregate averages models of processes"),
        ({"sharing": "streams", "tasks_per_device": 33}, "cuda", models(), "torch has 32 CUDA streams for a device"),
    ],
)
def test_what_cannot_share_a_gpu_says_why_and_is_skipped(options, kind, spec, reason):
    with pytest.raises(Unsupported, match=reason) as caught:
        layout("task_pool", 4, kind=kind, spec=spec, **{"tasks_per_device": 2, **options})
    assert caught.value.field is None


@pytest.mark.parametrize("sharing", ["time", "mps"])
def test_processes_that_share_a_gpu_generate_and_average(sharing):
    options = {"kind": "cuda", "tasks_per_device": 2, "sharing": sharing}
    assert layout("task_pool", 1, spec=models(phase="generate"), **options).processes == 2
    assert layout("task_pool", 1, spec=models(), aggregate="average", **options).averaged


@pytest.mark.parametrize("schedule", ["naive", "gpipe"])
def test_fewer_micro_batches_than_stages_are_fine_where_the_schedule_allows_it(schedule):
    parts = {} if schedule == "naive" else {"micro_batches": 2}
    assert layout("model_parallel", 4, schedule=schedule, **parts).processes == 4


def test_a_pool_with_more_models_than_devices_has_a_lane_a_device():
    assert layout("task_pool", 4, spec=workload(models=7)).lanes == 4


@pytest.mark.parametrize(
    ("options", "ranks", "parts"),
    [
        ({}, 2, 4),
        ({}, 8, 8),
        ({"schedule": "naive"}, 8, 1),
        ({"schedule": "naive", "micro_batches": 1}, 2, 1),
        ({"schedule": "gpipe"}, 8, 4),
        ({"schedule": "gpipe", "micro_batches": 7}, 2, 7),
        ({"schedule": "dualpipev"}, 4, 8),
    ],
)
def test_how_many_micro_batches_there_are(options, ranks, parts):
    assert PipelineOptions(**options).parts(ranks, workload()) == parts


@pytest.mark.parametrize(
    ("options", "ranks", "batch", "parts"),
    [
        ({}, 2, 32, 2),
        ({"micro_batches": 4}, 2, 32, 4),
        ({"schedule": "gpipe"}, 3, 32, 4),
        ({"schedule": "naive"}, 2, 32, 1),
        ({}, 4, 6, 6),
        ({}, 4, 2, 2),
    ],
)
def test_to_generate_there_are_as_few_micro_batches_as_keep_every_stage_at_work(options, ranks, batch, parts):
    spec = workload(batch=batch).model_copy(update={"phase": "generate"})
    assert PipelineOptions(**options).parts(ranks, spec) == parts


@pytest.mark.parametrize(
    "schedule", ["gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv", "dualpipev"]
)
@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_the_default_number_of_micro_batches_fits_every_schedule(schedule, ranks):
    parts = PipelineOptions(schedule=schedule).parts(ranks, workload())
    made = layout("model_parallel", ranks, spec=workload(layers=32, batch=parts), schedule=schedule)
    assert made.note.endswith(f"; {parts} micro-batches")


@pytest.mark.parametrize(
    ("schedule", "bubble"),
    [
        ("1f1b", 1 / 5),
        ("interleaved_1f1b", 1 / 9),
        ("interleaved_zero_bubble", 1 / 25),
        ("zbv", 0.0),
        ("dualpipev", None),
    ],
)
def test_the_bubble_that_a_schedule_has_by_design(schedule, bubble):
    options = PipelineOptions(schedule=schedule, micro_batches=4)
    assert options.bubble(2, workload()) == (bubble if bubble is None else pytest.approx(bubble))


@pytest.mark.parametrize(
    ("name", "options", "changes", "reason"),
    [
        ("ddp", {"communication_hook": "powersgd"}, {"precision": "fp16"}, "after one overflow, for good"),
        ("ddp", {"shard_optimizer": True}, {"precision": "fp16"}, "use bf16"),
        ("fsdp", {"offload": "parameters"}, {"precision": "fp16"}, "offloaded gradients are not there to look at"),
        ("single", {"cuda_graphs": True}, {"precision": "fp16"}, "whose loss scale must not change"),
        ("single", {"cuda_graphs": True}, {"phase": "score"}, "and not phase score"),
        (
            "single",
            {"cuda_graphs": True},
            {"activation_checkpointing": "offloaded"},
            "cannot capture memory of the host",
        ),
    ],
)
def test_options_that_a_workload_does_not_bear_say_why(name, options, changes, reason):
    with pytest.raises(Unsupported, match=reason):
        layout(name, 1, kind="cuda", spec=workload().model_copy(update=changes), **options)


def test_random_numbers_that_must_come_again_cannot_be_recorded():
    spec = workload().model_copy(update={"activation_checkpointing": True})
    assert layout("single", 1, kind="cuda", spec=spec, cuda_graphs=True).processes == 1
    brought = spec.model_copy(update={"model": Custom(build="m.py:build")})
    with pytest.raises(Unsupported, match="the state of random numbers"):
        layout("single", 1, kind="cuda", spec=brought, cuda_graphs=True)


def test_tokens_are_decoded_in_a_graph_where_caches_have_a_static_form():
    decoding = workload().model_copy(update={"phase": "generate", "precision": "fp16"})
    assert layout("single", 1, kind="cuda", spec=decoding, cuda_graphs=True).processes == 1
    growing = decoding.model_copy(update={"model": Custom(build="m.py:build")})
    with pytest.raises(Unsupported, match="caches of family custom grow with every token"):
        layout("single", 1, kind="cuda", spec=growing, cuda_graphs=True)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("data_parallel", {}, "the first device gathers whole logits"),
        ("ensemble", {}, "which torch.vmap cannot"),
        ("tensor_parallel", {}, "the vocabulary is split over ranks"),
        ("model_parallel", {}, "a micro-batch is a chunk already"),
        ("hybrid", {"data": 2, "pipeline": 2}, "a micro-batch is a chunk already"),
        ("hybrid", {"data": 2, "tensor": 2}, "the vocabulary is split over ranks"),
    ],
)
def test_a_loss_that_is_not_computed_in_chunks_says_why(name, options, reason):
    assert layout(name, 4, spec=gpt(), **options).devices == 4
    with pytest.raises(Unsupported, match=reason):
        layout(name, 4, spec=gpt(loss_chunks=2), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddp", {}),
        ("fsdp", {}),
        ("context_parallel", {}),
        ("local_sgd", {}),
        ("task_pool", {}),
        ("hybrid", {"data": 4}),
    ],
)
def test_whoever_has_a_whole_head_can_compute_the_loss_in_chunks(name, options):
    assert layout(name, 4, spec=gpt(loss_chunks=2), **options).processes == 4


@pytest.mark.parametrize("schedule", ["interleaved_zero_bubble", "zbv", "dualpipev"])
def test_what_is_kept_for_one_backward_pass_is_not_there_for_two(schedule):
    def made(checkpointing):
        spec = workload(layers=8).model_copy(update={"activation_checkpointing": checkpointing})
        return layout("model_parallel", 2, spec=spec, schedule=schedule)

    assert made(True).processes == 2
    with pytest.raises(Unsupported, match="passes backwards through a block twice"):
        made("selective")


@pytest.mark.parametrize("checkpointing", [True, "selective", Every(every=2)])
def test_stacked_models_are_not_checkpointed(checkpointing):
    with pytest.raises(Unsupported, match="cannot be checkpointed"):
        layout("ensemble", 1, spec=gpt(activation_checkpointing=checkpointing))


def test_stages_that_only_compute_forward_are_one_a_rank():
    scoring = workload().model_copy(update={"phase": "score"})
    assert layout("model_parallel", 2, spec=scoring, schedule="gpipe").bubble == 1 / 5
    with pytest.raises(Unsupported, match="use gpipe or 1f1b"):
        layout("model_parallel", 2, spec=scoring, schedule="zbv")


def test_the_naive_schedule_has_one_micro_batch():
    with pytest.raises(ValueError, match="schedule naive has one micro-batch"):
        PipelineOptions(schedule="naive", micro_batches=2)


@pytest.mark.parametrize("method", ["ring", "ulysses"])
def test_sequences_are_cut_over_devices_that_all_take_the_same_batch(method):
    made = layout("context_parallel", 4, spec=gpt(seq_len=4096, global_batch=1), method=method)
    assert made == Layout(processes=4, note="1,024 positions each")
    assert layout("context_parallel", 1, spec=gpt(seq_len=7), method=method) == Layout(processes=1)


def grouped(heads, key_value_heads):
    return WorkloadSpec(model=Llama(d_model=8 * heads, heads=heads, key_value_heads=key_value_heads))


@pytest.mark.parametrize(
    ("options", "spec", "field", "reason"),
    [
        ({}, workload(), None, "an LSTM's state at one position needs that of the position before"),
        (
            *({}, WorkloadSpec(model=Custom(build="m.py:build")), None),
            "does not know where the positions of a sequence meet in models of family custom",
        ),
        ({}, gpt(seq_len=12), "seq_len", "12 tokens does not divide into 8 parts, 2 for each device"),
        ({"method": "ulysses"}, gpt(seq_len=6), "seq_len", "6 tokens does not divide into 4 parts, 1 for each device"),
        ({"method": "ulysses"}, grouped(2, 2), None, "2 heads do not divide into 4 parts; method ring"),
        ({"method": "ulysses"}, grouped(12, 6), None, "6 heads of keys and values neither divide into 4 parts nor"),
    ],
)
def test_sequences_that_cannot_be_cut_say_why(options, spec, field, reason):
    with pytest.raises(Unsupported, match=reason) as caught:
        layout("context_parallel", 4, spec=spec, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(("heads", "key_value_heads"), [(12, 12), (12, 4), (4, 2), (4, 1)])
def test_heads_of_keys_and_values_are_shared_out_or_repeated(heads, key_value_heads):
    assert layout("context_parallel", 4, spec=grouped(heads, key_value_heads), method="ulysses").processes == 4


def test_a_ring_on_gpus_needs_heads_that_their_kernels_take():
    with pytest.raises(Unsupported, match="heads of a multiple of 8 channels and at most 256, not 4; method ulysses"):
        layout("context_parallel", 4, kind="cuda", spec=gpt())
    assert layout("context_parallel", 4, kind="cuda", spec=gpt(), method="ulysses").processes == 4
    assert layout("context_parallel", 4, kind="cuda", spec=grouped(6, 3)).processes == 4
