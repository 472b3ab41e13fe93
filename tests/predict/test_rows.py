"""Published rows: what is read, which model and machine they mean, what they leave open, and why some are left out."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.errors import UsageError
from parbench.predict.calibrate import predicted
from parbench.predict.cases import cases_of
from parbench.predict.constants import prior_constants
from parbench.predict.facts import with_facts
from parbench.predict.machines import UnknownDevice, machine_of
from parbench.predict.memory import memory_need
from parbench.predict.models import UnknownModel, model_of
from parbench.predict.problem import Problem
from parbench.predict.rows import Row, published_rows, read_rows

TEXTS = {
    "row_id": "X-1",
    "source": "somebody/else README.md @ abc",
    "arch": "decoder-transformer",
    "model": "Llama 3.1 8B",
    "gpu": "H100 SXM 80GB",
    "n_gpus": "64",
    "micro_batch": "1",
    "global_batch": "128",
    "precision": "bf16",
    "tokens_per_s_per_gpu": "10000",
}


BLANK = (
    *(
        "layers",
        "d_model",
        "heads",
        "kv_heads",
        "d_ff",
        "vocab",
        "seq_len",
        "params",
        "nodes",
        "gpu_mem_gb",
        "tp",
        "pp",
    ),
    *("cp", "vpp", "ep", "fsdp_shard", "zero_stage", "grad_accum", "act_ckpt", "mfu", "hfu", "interconnect", "compile"),
)
ODD = ("0", "-1", "0.5", "3", "7", "1e30", "8k", "auto", "ZeRO-3", "FULL_SHARD", "selective", "4x100Gb", "nan", "inf")


def row(**texts: str) -> Row:
    return Row({**TEXTS, **texts}, "else")


def numbers(**texts: str) -> dict[str, float]:
    cases, refused = cases_of([row(**texts)])
    assert not refused
    return dict(cases[0].numbers)


def refusal(**texts: str) -> str:
    cases, refused = cases_of([row(**texts)])
    assert not cases
    return refused["X-1"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250k", 250e3),
        ("1.3B", 1.3e9),
        ("~12", 12),
        ("8192", 8192),
        ("", None),
        ("none", None),
        ("2e-3", 2e-3),
        ("1,048,576", 1_048_576),
    ],
)
def test_numbers_are_read_as_tables_write_them(text: str, number: float | None):
    assert row(params=text).number("params") == number


@pytest.mark.parametrize(
    ("name", "layers", "width"),
    [
        ("Llama 3.1 8B", 32, 4096),
        ("LLAMA3_70B", 80, 8192),
        ("LLAMA3.1_405B", 126, 16384),
        ("Llama2 7b", 32, 4096),
        ("GPT-3 5B", 24, 4096),
        ("GPT3-175B", 96, 12288),
        ("MPT-1b", 24, 2048),
    ],
)
def test_models_are_known_by_the_names_that_tables_give_them(name: str, layers: int, width: int):
    shape = model_of(row(model=name)).shape
    assert (shape.layers, shape.width) == (layers, width)


def test_what_a_row_says_comes_before_what_is_known():
    model = model_of(row(layers="30", vocab="128k", seq_len="2048"))
    assert (model.shape.layers, model.shape.width, model.vocab_size, model.seq_len) == (30, 4096, 128_000, 2048)
    assert "layers" not in model.assumed
    assert {"d_model", "d_ff"} <= set(model.assumed)


def test_lengths_count_in_powers_of_two():
    assert model_of(row(seq_len="8k")).seq_len == 8192
    assert model_of(row(seq_len="1M")).seq_len == 2**20


@pytest.mark.parametrize(
    ("precision", "share"),
    [("bf16 (non-float8)", 1), ("float8 linear", 1402.6 / 794.5), ("not stated", 1), ("MXFP8", 1402.6 / 794.5)],
)
def test_formats_are_read(precision: str, share: float):
    found = numbers(precision=precision)
    assert found["matmul"] / found["matmul16"] == pytest.approx(share)


def test_layers_follow_from_the_size():
    assert model_of(row(model="GPT 195B", params="195B", d_model="14400", pp="11")).shape.layers == 77


@pytest.mark.parametrize("arch", ["LSTM seq2seq", "encoder-decoder (T5)", "Transformer-XL", "decoder MoE"])
def test_other_architectures_are_left_out(arch: str):
    with pytest.raises(UnknownModel, match="not made of equal blocks"):
        model_of(row(arch=arch))


def test_an_unknown_model_or_device_is_a_reason():
    assert "no model of that name is known" in refusal(model="Frob 3B")
    assert "no cluster that comes with parbench has its device MI300X" in refusal(gpu="MI300X")
    with pytest.raises(UnknownDevice):
        machine_of(row(gpu="not stated in this page"))


def test_a_machine_is_what_its_row_says_of_it():
    machine = machine_of(
        row(gpu="H100 SXM 96GB HBM2e 2.4TB/s, 500W power limit", gpu_mem_gb="96", interconnect="400 Gb/s RDMA per GPU")
    )
    assert machine.device.memory_gib == 96
    assert machine.device.memory_bandwidth == 2.4e12
    assert machine.device.power_share == pytest.approx(500 / 700)
    assert machine.links.network.bandwidth == 50e9
    node = machine_of(row(gpu="A100 80GB (somewhere, 4/node)", interconnect="4x100Gb RoCE per node"))
    assert (node.devices_per_node, node.links.network.bandwidth) == (4, 12.5e9)


def test_facts_fill_blanks_and_nothing_else():
    filled, columns = with_facts(Row({**TEXTS, "source": "bigscience-workshop/bigscience x", "act_ckpt": "none"}, ""))
    assert filled.text("act_ckpt") == "none"
    assert "act_ckpt" not in columns
    assert filled.number("node_gbit") == 400


def test_degrees_and_batches_are_worked_out():
    found = numbers(tp="4", pp="2", vpp="2", micro_batch="2", global_batch="256")
    wanted = {"data": 8, "tensor": 4, "pipeline": 2, "interleave": 2, "micro_batch": 2, "micro_batches": 16}
    assert {name: found[name] for name in wanted} == wanted
    assert "do not divide into tp 5" in refusal(tp="5")


@pytest.mark.parametrize(
    ("text", "cp", "shards"),
    [("", "1", 1), ("FULL_SHARD", "1", 64), ("HSDP", "1", 8), ("16", "1", 16), ("1", "8", 8), ("DDP (FSDP=0)", "1", 1)],
)
def test_shards_are_read(text: str, cp: str, shards: int):
    assert numbers(fsdp_shard=text, cp=cp)["shards"] == shards


def test_software_that_interleaves_does_so_where_a_row_does_not_say():
    bridge = {"source": "NVIDIA-NeMo/Megatron-Bridge x", "model": "LLAMA3_70B", "pp": "4"}
    assert numbers(**bridge)["interleave"] == 5
    assert numbers(**bridge, vpp="2")["interleave"] == 2
    assert numbers(model="LLAMA3_70B", pp="4")["interleave"] == 1


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ({"act_ckpt": "none (checkpoint=False)"}, 0),
        ({"act_ckpt": "full"}, 1),
        ({"act_ckpt": "selective op", "fsdp_shard": "64"}, 0.5),
        ({"act_ckpt": "selective", "mfu": "0.6", "hfu": "0.7"}, 0.5),
    ],
)
def test_recomputation_is_read(texts: dict[str, str], share: float):
    assert numbers(**texts)["recompute"] == pytest.approx(share)


def test_a_rate_that_counts_more_than_the_model_says_that_it_recomputes():
    counted = {"tokens_per_s_total": "640000", "tflops_per_gpu": "800", "seq_len": "2048"}
    assert numbers(**counted)["recompute"] == 1
    assert numbers(**{**counted, "tflops_per_gpu": "550"})["recompute"] == 0


def test_what_is_left_open_is_chosen_by_memory():
    cases, _ = cases_of([row(micro_batch="", global_batch="", gpu_mem_gb="80")])
    assert {"micro_batch", "global_batch", "act_ckpt"} <= set(cases[0].assumed)
    found = numbers(model="Llama 3 70B", fsdp_shard="FULL_SHARD", seq_len="8192")
    assert 0 < found["recompute"] < 1
    element = Problem.stacked([found])
    assert memory_need(element).allocated[0] == pytest.approx(0.95 * element.memory[0], rel=1e-3)


@pytest.mark.parametrize(("column", "text"), [("heads", "0"), ("seq_len", "0"), ("tp", "0.5"), ("fsdp_shard", "0.25")])
def test_sizes_and_degrees_are_at_least_one(column: str, text: str):
    assert refusal(**{column: text}) == f"{column} is {text}, and has to be at least 1"
    assert numbers(pp="0")["pipeline"] == 1


def test_a_row_without_a_rate_is_left_out():
    assert refusal(tokens_per_s_per_gpu="") == "it has no throughput"
    assert "experts" in refusal(ep="8")


def test_rates_are_taken_in_whatever_unit_they_are():
    def measured(**texts: str) -> float:
        return cases_of([row(tokens_per_s_per_gpu="", **texts)])[0][0].tokens_per_s

    assert measured(tokens_per_s_total="5") == 5
    assert measured(seqs_per_s_total="5") == 5 * 8192
    assert measured(iter_time_s="2") == 128 * 8192 / 2


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("row_id,gpu\n1,H100\n", "lacks the columns source, n_gpus"),
        ("row_id,source,gpu,n_gpus\n1,a,H100,8\n", "has no throughput"),
        ("row_id,source\n", "has no rows"),
        ("row_id,file,fold\n1,../../etc/passwd,x\n", "is not the name of a table"),
        ("row_id,file,fold\n1,nowhere,x\n", "named by an index"),
        ("row_id,file,fold\n1,torchtitan,x\n", "names 1 rows that their tables do not have"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(text: str, problem: str, tmp_path: Path):
    with pytest.raises(UsageError, match=problem):
        read_rows(table(tmp_path, text))


def test_a_table_may_name_published_rows(tmp_path: Path):
    found = read_rows(table(tmp_path, "row_id,file,fold\nTT-001,torchtitan,mine\n"))
    assert [(each.row_id, each.fold) for each in found] == [("TT-001", "mine")]


def test_software_that_is_named_has_kernels_for_its_devices():
    assert numbers(software="NeMo 25.02 container")["native_attention"] == 1
    assert numbers()["native_attention"] == 0
    assert numbers(gpu="A100 80GB")["native_attention"] == 1


@given(st.dictionaries(st.sampled_from(sorted({*TEXTS, *BLANK})), st.text(max_size=12) | st.sampled_from(ODD)))
def test_whatever_stands_in_a_row_is_a_case_or_a_reason(texts: dict[str, str]):
    cases, refused = cases_of([row(**texts)])
    assert len(cases) + len(refused) == 1
    for case in cases:
        assert case.tokens_per_s > 0
        assert predicted(Problem.stacked([case.numbers]), prior_constants())[0] > 0


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_stands_in_a_table_is_rows_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        read_rows(path)


def test_all_published_rows_can_be_predicted():
    cases, refused = cases_of(published_rows())
    assert (len(cases), refused) == (434, {})
