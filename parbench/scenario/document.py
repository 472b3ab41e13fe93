"""Reads YAML 1.2 into plain data and keeps the line of each value. Tags, duplicate keys and alias bombs are refused."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from parbench.errors import Mistake, ScenarioError
from parbench.system.reading import read_whole

MAX_BYTES = 1_000_000


MAX_DEPTH = 32


MAX_NODES = 20_000


MAX_ALIASES = 100


MAX_DIGITS = 100


DataPath = tuple[str | int, ...]


SCENARIO_KEYS = ("workloads", "strategies")
"""What a document is to have, unless it is another file than a scenario."""


_TAG_PREFIX = "tag:yaml.org,2002:"


_MERGE_TAG = f"{_TAG_PREFIX}merge"


_KEY_TAGS = {f"{_TAG_PREFIX}str", _MERGE_TAG}


_PLAIN_TAGS = _KEY_TAGS | {f"{_TAG_PREFIX}{name}" for name in ("map", "seq", "int", "float", "bool", "null")}


@dataclass(frozen=True)
class Document:
    """Plain data (`dict`, `list`, `str`, `int`, `float`, `bool`, `None`), and where each value of it stands.

    `lines` has the lines of values from the file `source`, `overridden` the option of values that `--set` gave, both by
    path. `implied` are the paths of mappings that stand nowhere, because an override sets a value inside of them.
    """

    data: dict[str, Any]
    source: str
    lines: Mapping[DataPath, int] = field(default_factory=dict)
    overridden: Mapping[DataPath, str] = field(default_factory=dict)
    implied: frozenset[DataPath] = frozenset()

    def holds(self, path: DataPath) -> bool:
        """Whether the file or an override has a value at `path`."""
        return path in self.lines or path in self.overridden

    def mistake(self, path: DataPath, message: str) -> Mistake:
        """A mistake at `path`, with the line of the value there, or else of the nearest value around it."""
        dotted = ".".join(map(str, path))
        for end in range(len(path), -1, -1):
            if path[:end] in self.overridden:
                return Mistake(self.overridden[path[:end]], None, dotted, message)
            if path[:end] in self.lines:
                return Mistake(self.source, self.lines[path[:end]], dotted, message)
        return Mistake(self.source, None, dotted, message)

    def override(self, assignments: Sequence[str]) -> "Document":
        """A copy in which each `dotted.path=value` is applied; the value is YAML, and missing parents are added.

        Raises `ScenarioError` for an assignment of another form, or with a path through a plain value.
        """
        document = self
        for assignment in assignments:
            document = document._assign(assignment)
        return document

    def _assign(self, assignment: str) -> "Document":
        dotted, equals, text = assignment.partition("=")
        source = f"--set {dotted}"
        if not equals or not all(dotted.split(".")):
            raise ScenarioError([Mistake(source, None, "", "write it as dotted.path=value")])
        value = _parse_value(text, source)
        try:
            data, path = _set_value(self.data, dotted.split("."), value.data["value"])
        except KeyError as error:
            raise ScenarioError([Mistake(source, None, "", f"there is no {error.args[0]} to set this in")]) from None
        lines = {other: line for other, line in self.lines.items() if other[: len(path)] != path}
        parts = {(*path, *part[1:]): source for part in value.lines if part}
        parents = {path[:end]: source for end in range(1, len(path)) if path[:end] not in lines}
        implied = self.implied.union(parents.keys() - self.overridden.keys())
        return Document(data, self.source, lines, {**parents, **self.overridden, **parts}, implied)


def read_document(path: Path, keys: Sequence[str] = SCENARIO_KEYS) -> Document:
    """Reads the YAML mapping in a file, which has at least these keys. Raises `ScenarioError` with syntax errors."""
    try:
        text = read_whole(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise ScenarioError([Mistake(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ScenarioError([Mistake(str(path), None, "", "is not UTF-8 text")]) from None
    return parse_document(text, source=str(path), keys=keys)


def parse_document(text: str, source: str, keys: Sequence[str] = SCENARIO_KEYS) -> Document:
    """Reads the YAML mapping in `text`; `source` and `keys`, what it is to have, name it in messages.

    Raises `ScenarioError`.
    """
    node = _compose(text, source)
    if node is None:
        raise ScenarioError([Mistake(source, 1, "", f"is empty; it needs at least {' and '.join(keys)}")])
    if not isinstance(node, MappingNode):
        wanted = f"must be a mapping with keys such as {' and '.join(keys)}"
        raise ScenarioError([Mistake(source, _line(node), "", wanted)])
    lines: dict[DataPath, int] = {}
    mistakes: list[Mistake] = []
    # Visits are counted besides paths, because merged mappings have the same paths again.
    for visits, (path, line, problem) in enumerate(_walk(node, (), 0)):
        lines.setdefault(path, line)
        if problem:
            mistakes.append(Mistake(source, line, ".".join(map(str, path)), problem))
        if len(lines) > MAX_NODES or visits > 3 * MAX_NODES:
            raise ScenarioError(
                [Mistake(source, line, "", f"has more than {MAX_NODES:,} values once aliases are expanded")]
            )
    if mistakes:
        raise ScenarioError(mistakes)
    with _yaml(source) as yaml:
        return Document(yaml.load(text), source, lines)


def _compose(text: str, source: str) -> Node | None:
    if len(text) > MAX_BYTES:
        raise ScenarioError([Mistake(source, None, "", f"is longer than {MAX_BYTES:,} characters")])
    _refuse_bombs(text, source)
    with _yaml(source) as yaml:
        root: Node | None = yaml.compose(text)
        return root


@contextmanager
def _yaml(source: str) -> Iterator[YAML]:
    """A parser. What it raises within the block becomes a `ScenarioError` about `source`."""
    try:
        # YAML 1.2 allows an anchor to be defined twice; ruamel.yaml warns about it.
        with warnings.catch_warnings(action="ignore", category=YAMLWarning):
            yield YAML(typ="safe", pure=True)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        problem = str(error.problem or error.context)
        if "\\t" in problem:
            problem = "a tab is used for indentation; YAML wants spaces"
        raise ScenarioError([Mistake(source, line, "", f"is not YAML: {problem}")]) from None
    # ruamel.yaml raises these for values that do not fit their tags, and for unknown versions of YAML.
    except (YAMLError, ValueError, LookupError, AssertionError) as error:
        raise ScenarioError([Mistake(source, None, "", f"is not YAML: {str(error).partition(chr(10))[0]}")]) from None


def _refuse_bombs(text: str, source: str) -> None:
    """Raises `ScenarioError` for too many values, aliases or levels.

    They are counted in the stream of events, before anything expands or recurses.
    """
    depth = values = aliases = 0
    with _yaml(source) as yaml:
        for event in yaml.parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            values += isinstance(event, NodeEvent)
            aliases += isinstance(event, AliasEvent)
            for count, limit, problem in (
                (depth, MAX_DEPTH, f"is nested deeper than {MAX_DEPTH} levels"),
                (values, 2 * MAX_NODES, f"has more than {MAX_NODES:,} values"),
                (aliases, MAX_ALIASES, f"has more than {MAX_ALIASES} aliases"),
            ):
                if count > limit:
                    raise ScenarioError([Mistake(source, event.start_mark.line + 1, "", problem)])


def _walk(node: Node, path: DataPath, depth: int) -> Iterator[tuple[DataPath, int, str | None]]:
    """Every value's path, line and problem, in the order of the file."""
    problem = _problem(node, depth)
    yield path, _line(node), problem
    if problem:
        return
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index), depth + 1)
    elif isinstance(node, MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag not in _KEY_TAGS or _problem(key, depth):
                yield path, _line(key), "a key must be plain text; a number or a word with a meaning needs quotes"
                continue
            name = str(key.value)
            yield (*path, name), _line(key), "this key stands here twice; keep one" if name in names else None
            names.add(name)
            yield from _walk(value, (*path, name) if key.tag != _MERGE_TAG else path, depth + 1)


def _problem(node: Node, depth: int) -> str | None:
    """What is wrong with a value itself, apart from the values inside of it; None if nothing is."""
    if node.tag not in _PLAIN_TAGS:
        name = str(node.tag).removeprefix(_TAG_PREFIX)
        return f"the type '{name}' is not allowed here; use plain text, numbers, lists and mappings"
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels once aliases are expanded"
    if isinstance(node, ScalarNode):
        if node.tag == f"{_TAG_PREFIX}int" and len(node.value) > MAX_DIGITS:
            return f"has more than {MAX_DIGITS} digits"
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            return "holds half of a surrogate pair, which is no character"
    return None


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _parse_value(text: str, source: str) -> Document:
    """Reads the YAML of one value as a document that has it under the key `value`."""
    return parse_document(f"value: {text}", source)


def _set_value(data: Any, path: Sequence[str], value: Any) -> tuple[Any, DataPath]:
    """A copy of `data` with `value` at `path`, and the path with its indices as numbers.

    Raises `KeyError` where the path leads through a plain value, or past the end of a list.
    """
    if not path:
        return value, ()
    head, rest = path[0], path[1:]
    if isinstance(data, list) and head.isdecimal() and int(head) < len(data):
        index = int(head)
        item, rest_of_path = _set_value(data[index], rest, value)
        return [*data[:index], item, *data[index + 1 :]], (index, *rest_of_path)
    if data is None or isinstance(data, dict):
        item, rest_of_path = _set_value((data or {}).get(head), rest, value)
        return {**(data or {}), head: item}, (head, *rest_of_path)
    raise KeyError(head)
