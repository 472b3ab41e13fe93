import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.errors import Mistake, ScenarioError
from parbench.scenario import document as module
from parbench.scenario.document import Document, parse_document, read_document

TREE = """\
name: tree
workloads:
  lstm:
    model: {kind: lstm, layers: 2}
    seq_len: 64
strategies:
  - single
  - model_parallel:
      schedule: gpipe
"""

# JSON writes characters beyond U+FFFF as two halves, which YAML does not put together again.
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
TOKENS = r"""a b : - ? , { } [ ] &x *x << ! !!int !!str !!python/name:os ' " | > # --- %YAML %TAG 1.1 1 1e-3 ~ \ud800"""
YAMLISH = st.lists(
    st.sampled_from([*TOKENS.split(), " ", ": ", "- ", "\n", "\n  ", "\t", "\0", "\ufeff"]), max_size=20
).map("".join)


def parse(text: str) -> Document:
    return parse_document(text, "file.yaml")


def mistakes_of(text: str) -> list[Mistake]:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("3e-4", 0.0003),
        (".5", 0.5),
        ("12", 12),
        ("0x10", 16),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("1:30", "1:30"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("[1, two]", [1, "two"]),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    data = parse(f"key: {text}").data["key"]
    assert data == value
    assert type(data) is type(value)


def test_every_part_knows_its_line():
    document = parse(TREE)
    assert document.lines[("workloads", "lstm", "model", "layers")] == 4
    assert document.lines[("workloads", "lstm", "seq_len")] == 5
    assert document.lines[("strategies", 0)] == 7
    assert document.lines[("strategies", 1, "model_parallel", "schedule")] == 9


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("workloads", "lstm", "seq_len"), 5),
        (("workloads", "lstm", "optimizer", "lr"), 3),
        (("measure", "rounds"), 1),
    ],
)
def test_a_mistake_stands_at_the_nearest_key_that_was_written(path, line):
    assert parse(TREE).mistake(path, "is wrong") == Mistake("file.yaml", line, ".".join(path), "is wrong")


def test_a_mistake_tells_its_file_line_and_path():
    assert str(Mistake("file.yaml", 3, "a.b", "is wrong")) == "file.yaml:3: a.b: is wrong"
    assert str(Mistake("--set a", None, "", "is wrong")) == "--set a: is wrong"


def test_mistakes_are_told_once_and_in_the_order_of_the_file():
    later, earlier = Mistake("file.yaml", 9, "b", "is wrong"), Mistake("file.yaml", 2, "a", "is wrong")
    error = ScenarioError([later, earlier, later])
    assert error.mistakes == [earlier, later]
    assert str(error) == "file.yaml:2: a: is wrong\nfile.yaml:9: b: is wrong"


def test_all_that_the_text_shows_is_told_at_once():
    text = "a: 1\na: 2\nb: !!timestamp 2020-01-01\nc: [x, !!python/object/apply:os.system [echo]]\n1: 2\n"
    assert [(mistake.line, mistake.path) for mistake in mistakes_of(text)] == [(2, "a"), (3, "b"), (4, "c.1"), (5, "")]


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("", 1, "", "is empty"),
        ("# nothing\n", 1, "", "is empty"),
        ("- a\n- b\n", 1, "", "must be a mapping"),
        ("just text", 1, "", "must be a mapping"),
        ("a:\n\tb: 1\n", 2, "", "a tab is used for indentation"),
        ("a:\n  b: 1\n\tc: 2\n", 3, "", "a tab is used for indentation"),
        ("a: [1, 2\nb: 3", 2, "", "is not YAML"),
        ("a: *nobody", 1, "", "undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2\n", 2, "", "another document"),
        ("a: \x00", None, "", "is not YAML"),
        ("%YAML 1.3\n---\na: 1", None, "", "is not YAML"),
        ("a:\n  b: 1\n  b: 2\n", 3, "a.b", "stands here twice"),
        ("a: {b: 1, 'b': 2}\n", 1, "a.b", "stands here twice"),
        ("a: 2020-01-01", 1, "a", "the type 'timestamp' is not allowed"),
        ("a: !!python/name:os.system ''", 1, "a", "the type 'python/name:os.system' is not allowed"),
        ("a: !!binary aGVsbG8=", 1, "a", "the type 'binary' is not allowed"),
        ("a: !!set {b, c}", 1, "a", "the type 'set' is not allowed"),
        ("!!python/name:os.system x: 1", 1, "", "a key must be plain text"),
        ("a:\n  ? [b]\n  : 1", 2, "a", "a key must be plain text"),
        ("a:\n  true: 1", 2, "a", "a key must be plain text"),
        ("null: 1", 1, "", "a key must be plain text"),
        ("a: !!int one", None, "", "is not YAML"),
        ("a: !!int ''", None, "", "is not YAML"),
        ("a: !!bool perhaps", None, "", "is not YAML"),
        ("a: !!str {b: 1}", 1, "", "is not YAML"),
        ("<<: 5", 1, "", "is not YAML"),
        ('a: "\\ud800"', 1, "a", "half of a surrogate pair"),
        ('"\\ud800": 1', 1, "", "a key must be plain text"),
        (f"a: {'9' * 5000}", 1, "a", "more than 100 digits"),
        (f"a: 0x{'f' * 5000}", 1, "a", "more than 100 digits"),
    ],
)
def test_text_that_is_no_scenario_is_refused_with_its_place(text, line, path, words):
    (mistake,) = mistakes_of(text)
    assert (mistake.source, mistake.line, mistake.path) == ("file.yaml", line, path)
    assert words in mistake.message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_before_anything_recurses(opening):
    (mistake,) = mistakes_of("a: 1\nb:\n  " + opening * 3000)
    assert (mistake.line, mistake.message) == (3, "is nested deeper than 32 levels")


def test_nesting_as_deep_as_is_allowed_can_be_read():
    assert parse(f"a: {'[' * 31}{']' * 31}").data["a"]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a [*a, *a]",
        "a: &a {<<: *a}",
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
        "a0: &a0 {b: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 60)),
    ],
    ids=["itself", "itself twice", "merged into itself", "chain", "chain of merges"],
)
def test_aliases_that_nest_without_end_are_refused(text):
    assert any("once aliases are expanded" in mistake.message for mistake in mistakes_of(text))


@pytest.mark.parametrize(
    "level", ["a{i}: &a{i} [*a{j}, *a{j}, *a{j}]\n", "a{i}: &a{i} {{<<: *a{j}, <<: *a{j}, <<: *a{j}}}\n"]
)
def test_an_alias_bomb_is_refused(level):
    text = "a0: &a0 {b: 1}\n" + "".join(level.format(i=i, j=i - 1) for i in range(1, 28))
    assert any("more than 20,000 values" in mistake.message for mistake in mistakes_of(text))


def test_many_aliases_are_refused():
    (mistake,) = mistakes_of("a: &a 1\nb:\n" + "  - *a\n" * 101)
    assert (mistake.line, mistake.message) == (103, "has more than 100 aliases")


def test_many_values_are_refused_without_reading_on():
    (mistake,) = mistakes_of("a:\n" + "  - b\n" * 40_000 + "\t - not even YAML")
    assert "more than 20,000 values" in mistake.message


def test_anchors_and_merged_mappings_are_plain_data():
    text = "base: &base {seq_len: 64, lr: 1}\na: {<<: *base, lr: 2}\nb: *base\nc: &base 5\nd: *base\n"
    assert parse(text).data == {
        "base": {"seq_len": 64, "lr": 1},
        "a": {"seq_len": 64, "lr": 2},
        "b": {"seq_len": 64, "lr": 1},
        "c": 5,
        "d": 5,
    }


def test_a_long_text_is_refused_unread():
    (mistake,) = mistakes_of("[" + " " * module.MAX_BYTES)
    assert mistake.message == "is longer than 1,000,000 characters"


def test_a_file_is_named_in_its_mistakes(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(ScenarioError) as caught:
        read_document(path)
    assert caught.value.mistakes == [Mistake(str(path), 2, "a", "this key stands here twice; keep one")]


def test_a_file_is_read_as_utf_8(tmp_path):
    path = tmp_path / "größe.yaml"
    path.write_bytes("name: größe\n".encode())
    assert read_document(path).data == {"name": "größe"}


def write_nothing(path: Path) -> None:
    """Leaves the path as it is: without a file."""


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_nothing, "cannot be read: No such file or directory"),
        (Path.mkdir, "cannot be read: it is not a regular file but a folder"),
        (lambda path: path.write_bytes(b"name: \xff\xfe"), "is not UTF-8 text"),
        (
            lambda path: path.write_bytes(b"#" * (module.MAX_BYTES + 1)),
            "cannot be read: it has 1,000,001 bytes, and at most 1,000,000 are read",
        ),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is not a regular file but a device"),
    ],
    ids=["missing", "folder", "latin-1", "large", "endless"],
)
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path, write, words):
    path = tmp_path / "scenario.yaml"
    write(path)
    with pytest.raises(ScenarioError) as caught:
        read_document(path)
    assert caught.value.mistakes == [Mistake(str(path), None, "", words)]


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("workloads.lstm.seq_len=128", ["workloads", "lstm", "seq_len"], 128),
        ("workloads.lstm.seq_len=[32, 64]", ["workloads", "lstm", "seq_len"], [32, 64]),
        ("workloads.lstm.optimizer.lr=1e-3", ["workloads", "lstm", "optimizer", "lr"], 0.001),
        ("measure={rounds: 2}", ["measure"], {"rounds": 2}),
        ("name=a=b", ["name"], "a=b"),
        ("name=no", ["name"], "no"),
        ("name=", ["name"], None),
        ("strategies.0=ddp", ["strategies", 0], "ddp"),
        ("strategies.1.model_parallel.schedule=naive", ["strategies", 1, "model_parallel", "schedule"], "naive"),
    ],
)
def test_an_override_sets_one_value_and_leaves_the_rest(assignment, path, value):
    before = parse(TREE)
    document = before.override([assignment])
    found = document.data
    for key in path:
        found = found[key]
    assert found == value
    assert before.data == parse(TREE).data
    assert document.mistake(tuple(path), "is wrong") == Mistake(
        f"--set {assignment.partition('=')[0]}", None, ".".join(map(str, path)), "is wrong"
    )
    untouched = document.mistake(("workloads", "lstm", "model"), "is wrong")
    assert (untouched.source, untouched.line) == ("file.yaml", 4)


def test_the_last_of_several_overrides_counts():
    assert parse("a: 1").override(["a=2", "b.c=3", "a=4"]).data == {"a": 4, "b": {"c": 3}}


def test_what_an_override_replaces_has_no_line_any_more():
    document = parse(TREE).override(["workloads.lstm={model: {kind: gru}}"])
    for path in (("workloads", "lstm", "model", "kind"), ("workloads", "lstm", "seq_len")):
        assert document.mistake(path, "is wrong").source == "--set workloads.lstm"


@pytest.mark.parametrize(
    ("assignment", "source", "words"),
    [
        ("name", "--set name", "write it as dotted.path=value"),
        ("=5", "--set ", "write it as dotted.path=value"),
        ("workloads..seq_len=5", "--set workloads..seq_len", "write it as dotted.path=value"),
        ("name.first=x", "--set name.first", "there is no first to set this in"),
        ("strategies.7=ddp", "--set strategies.7", "there is no 7 to set this in"),
        ("strategies.first=ddp", "--set strategies.first", "there is no first to set this in"),
        ("strategies.0.single.x=1", "--set strategies.0.single.x", "there is no single to set this in"),
        ("name=[1", "--set name", "is not YAML"),
        ("name=!!python/name:os.system ''", "--set name", "the type 'python/name:os.system' is not allowed"),
    ],
)
def test_an_override_that_cannot_be_carried_out_is_a_mistake(assignment, source, words):
    with pytest.raises(ScenarioError) as caught:
        parse(TREE).override([assignment])
    (mistake,) = caught.value.mistakes
    assert mistake.source == source
    assert words in mistake.message


@given(ANYTHING)
def test_data_comes_back_as_it_was_written(data):
    assert parse(f"key: {json.dumps(data)}").data == {"key": data}


@given(YAMLISH | st.text(max_size=40))
def test_no_text_makes_another_error(text):
    with suppress(ScenarioError):
        assert isinstance(parse(text).data, dict)


@given(YAMLISH | st.text(max_size=20), st.sampled_from(["", "name=", "strategies.1=", "workloads.lstm.seq_len="]))
def test_no_override_makes_another_error(text, start):
    with suppress(ScenarioError):
        assert isinstance(parse(TREE).override([start + text]).data, dict)


@given(content=st.binary(max_size=60))
def test_no_bytes_make_another_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / f"bytes{os.getpid()}.yaml"
    path.write_bytes(content)
    with suppress(ScenarioError):
        assert isinstance(read_document(path).data, dict)
