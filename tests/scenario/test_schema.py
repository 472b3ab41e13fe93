import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from parbench.plan.reading import catalogue
from parbench.scenario.document import parse_document, read_document
from parbench.scenario.loader import draft_scenario
from parbench.scenario.schema import scenario_schema

SCENARIOS = sorted(Path(__file__).parents[2].glob("scenarios/**/*.yaml"))
GOOD = "workloads: {lstm: {model: {kind: lstm, layers: 2}}}\nstrategies: [single, ddp]\n"


@pytest.fixture(scope="module")
def schema():
    return scenario_schema(catalogue())


@pytest.fixture(scope="module")
def validator(schema):
    return Draft202012Validator(schema)


def document(*overrides: str):
    return parse_document(GOOD, "file.yaml").override(overrides)


def test_it_is_a_json_schema(schema):
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_it_can_be_made_again(schema):
    assert scenario_schema(catalogue()) == schema


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenarios_that_come_along_are_valid(validator, path):
    validator.validate(read_document(path).data)


def test_there_are_scenarios():
    assert len(SCENARIOS) >= 4


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["name=mine", "description=Why?"],
        ["workloads.lstm.seq_len=[32, 64]"],
        ["workloads.lstm.model.layers=[1, 2]"],
        ["workloads.lstm.model=[{kind: lstm}, {kind: transformer, heads: 2}]"],
        ["workloads.lstm.model={kind: custom, build: 'tests/scenarios/brought.py:seamed', options: {layers: [1, 2]}}"],
        ["workloads.lstm.model={kind: transformer, preset: [gpt-laptop, gpt2-124m]}"],
        ["workloads.lstm.models=[auto, 2]"],
        ["workloads.lstm.optimizer={name: [adam, adamw], lr: [1e-3, 1e-2]}"],
        ["workloads.lstm.activation_checkpointing=[none, true, selective, offloaded, {every: [2, 3]}]"],
        ["workloads.lstm.activation_checkpointing={every: 4}"],
        ["workloads.lstm.models=2", "workloads.lstm.optimizer.lr_per_model=[1e-3, 1e-2]"],
        ["workloads.lstm.data={source: python-stdlib}"],
        ["workloads.lstm.data={source: text, path: [a.txt, b.txt]}"],
        ["workloads.lstm.data={source: text, path: texts, files: '**/*.md', bpe: {vocab_size: [300, 400]}}"],
        ["workloads.lstm.data={source: synthetic, vocab_size: [10, 20]}"],
        ["strategies=[{ddp: }, {model_parallel: {schedule: [gpipe, 1f1b], micro_batches: 4}}]"],
        ["devices.counts=2"],
        ["devices.counts=[1, 2]"],
        ["devices.counts=auto"],
        ["devices="],
        ["measure="],
        ["check="],
        ["cost="],
        ["cost={per_device_hour: 2.5}"],
        ["cost={per_device_hour: 2, currency: €}"],
        ["exclude="],
        ["exclude=[{strategy: ddp, devices: [1, 2]}, {compile: true}]"],
        ["scaling=weak"],
        ["scaling=[strong, weak]"],
    ],
)
def test_what_the_loader_reads_is_valid(validator, overrides):
    written = document(*overrides)
    assert draft_scenario(written, catalogue(), default_name="any").mistakes == []
    validator.validate(written.data)


@pytest.mark.parametrize(
    "override",
    [
        "stratgies=[single]",
        "workloads.lstm.globl_batch=8",
        "workloads.lstm.model.layrs=2",
        "workloads.lstm.model.heads=2",
        "workloads.lstm.model={kind: transformer, preset: gpt3}",
        "workloads.lstm.model={kind: custom, build: 5}",
        "workloads.lstm.model={kind: custom}",
        "workloads.lstm.model={kind: huggingface, architecture: gpt2, config: 5}",
        "workloads.lstm.model.kind=gru",
        "workloads.lstm.model={layers: 2}",
        "workloads.lstm={seq_len: 2}",
        "workloads.lstm.seq_len=long",
        "workloads.lstm.seq_len=[1, long]",
        "workloads.lstm.seq_len=[]",
        "workloads.lstm.activation_checkpointing=some",
        "workloads.lstm.activation_checkpointing=1",
        "workloads.lstm.activation_checkpointing={every: 1}",
        "workloads.lstm.activation_checkpointing={each: 2}",
        "workloads.lstm.optimizer.learning_rate=1",
        "workloads.lstm.data={path: a.txt}",
        "workloads.lstm.data={source: text}",
        "workloads={}",
        "workloads=",
        f"workloads.{'x' * 101}={{model: {{kind: lstm}}}}",
        "strategies=",
        "strategies=[]",
        "strategies=[sinlge]",
        "strategies=[{ddp: , single: }]",
        "strategies=[{ddp: {fast: true}}]",
        "strategies=[{model_parallel: {schedul: gpipe}}]",
        "strategies=[{model_parallel: {schedule: gpip}}]",
        "devices.count=1",
        "devices.counts=[]",
        "devices.counts=0",
        "measure.rounds=[1, 2]",
        "measure.round=1",
        "check.margin=[0.1, 0.2]",
        "exclude={strategy: ddp}",
        "exclude=[ddp]",
        "exclude=[{}]",
        "exclude=[{stratgy: ddp}]",
        "exclude=[{devices: two}]",
        "exclude=[{devices: true}]",
        "cost=2.5",
        "cost={}",
        "cost={per_device_hour: 0}",
        "cost={per_device_hour: '2'}",
        "cost={per_device_hour: 2, currency: much too long}",
        "cost={price: 2}",
        "scaling=strongly",
        "scaling=[strong, strong]",
        "scaling=[]",
        "name=5",
    ],
)
def test_what_the_loader_refuses_is_invalid(validator, override):
    written = document(override)
    assert draft_scenario(written, catalogue(), default_name="any").mistakes
    assert not validator.is_valid(written.data)


def test_every_strategy_and_family_can_be_chosen(schema):
    name, with_options = schema["properties"]["strategies"]["items"]["anyOf"]
    assert name["enum"] == list(with_options["properties"]) == list(catalogue().options)
    families = schema["$defs"]["WorkloadSpec"]["properties"]["model"]["anyOf"][0]["oneOf"]
    kinds = [schema["$defs"][family["$ref"].rpartition("/")[2]]["properties"]["kind"]["const"] for family in families]
    assert kinds == list(catalogue().families)


def test_everything_that_is_a_mapping_is_described_and_closed(schema):
    assert schema["description"]
    for definition in schema["$defs"].values():
        assert definition["description"]
        assert definition["additionalProperties"] is False


def test_defaults_stand_where_editors_look_for_them(schema):
    assert schema["$defs"]["WorkloadSpec"]["properties"]["seq_len"]["default"] == 64
    assert schema["$defs"]["MeasureSpec"]["properties"]["rounds"]["default"] == 5
