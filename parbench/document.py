"""YAML text into plain data that remembers its lines. Refuses tags, bombs and duplicate keys; YAML 1.2 by ruamel.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from parbench.errors import Mistake, ScenarioError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_ALIASES = 100

DataPath = tuple[str | int, ...]

_TAG_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_TAG_PREFIX}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


@dataclass(frozen=True)
class Document:
    """Plain data (`dict`, `list`, `str`, `int`, `float`, `bool`, `None`) and where each part of it was written."""

    data: dict[str, Any]
    source: str
    lines: Mapping[DataPath, int] = field(default_factory=dict)
    overridden: Mapping[DataPath, str] = field(default_factory=dict)

    def mistake(self, path: DataPath, message: str) -> Mistake:
        """A mistake at `path`, with the line of the nearest enclosing key that was written down."""
        dotted = ".".join(map(str, path))
        for end in range(len(path), -1, -1):
            if path[:end] in self.overridden:
                return Mistake(self.overridden[path[:end]], None, dotted, message)
            if path[:end] in self.lines:
                return Mistake(self.source, self.lines[path[:end]], dotted, message)
        return Mistake(self.source, None, dotted, message)

    def override(self, assignments: Sequence[str]) -> "Document":
        """A copy in which each `dotted.path=value` is carried out; the value is YAML. Missing parents are made."""
        document = self
        for assignment in assignments:
            document = document._assign(assignment)
        return document

    def _assign(self, assignment: str) -> "Document":
        dotted, equals, text = assignment.partition("=")
        source = f"--set {dotted}"
        if not equals or not all(dotted.split(".")):
            raise ScenarioError([Mistake(source, None, "", "write it as dotted.path=value")])
        path = tuple(dotted.split("."))
        try:
            data = _assigned(self.data, path, _value(text, source))
        except KeyError as error:
            raise ScenarioError([Mistake(source, None, "", f"there is no {error.args[0]} to set this in")]) from None
        return Document(data, self.source, self.lines, {**self.overridden, path: source})


def read_document(path: Path) -> Document:
    """The YAML mapping in a file. Raises `ScenarioError` with every mistake that can be told from its text alone."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ScenarioError(
                [Mistake(str(path), None, "", f"has {size:,} bytes; a scenario has at most {MAX_BYTES:,}")]
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError([Mistake(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ScenarioError([Mistake(str(path), None, "", "is not UTF-8 text")]) from None
    return parse_document(text, source=str(path))


def parse_document(text: str, source: str) -> Document:
    """The YAML mapping in `text`; `source` names it in messages. Raises `ScenarioError`."""
    node = _compose(text, source)
    if node is None:
        raise ScenarioError([Mistake(source, 1, "", "is empty; a scenario needs at least workloads and strategies")])
    if not isinstance(node, MappingNode):
        raise ScenarioError(
            [Mistake(source, _line(node), "", "must be a mapping with keys such as workloads and strategies")]
        )
    lines: dict[DataPath, int] = {}
    mistakes: list[Mistake] = []
    for path, line, problem in _walk(node, ()):
        lines.setdefault(path, line)
        if problem:
            mistakes.append(Mistake(source, line, ".".join(map(str, path)), problem))
        if len(lines) > MAX_NODES:
            raise ScenarioError(
                [Mistake(source, line, "", f"has more than {MAX_NODES:,} values once aliases are expanded")]
            )
    if mistakes:
        raise ScenarioError(mistakes)
    return Document(_load(text), source, lines)


def _compose(text: str, source: str) -> Node | None:
    if len(text) > MAX_BYTES:
        raise ScenarioError([Mistake(source, None, "", f"is longer than {MAX_BYTES:,} characters")])
    try:
        _refuse_bombs(text, source)
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
        return root
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        problem = str(error.problem or error.context)
        if "\\t" in problem:
            problem = "a tab is used for indentation; YAML wants spaces"
        raise ScenarioError([Mistake(source, line, "", f"is not YAML: {problem}")]) from None
    except (YAMLError, ValueError) as error:
        raise ScenarioError([Mistake(source, None, "", f"is not YAML: {str(error).splitlines()[0]}")]) from None


def _refuse_bombs(text: str, source: str) -> None:
    """Nesting and aliases are counted in the event stream, before anything recursive touches them."""
    depth = aliases = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        aliases += isinstance(event, AliasEvent)
        if depth > MAX_DEPTH or aliases > MAX_ALIASES:
            what = (
                f"is nested deeper than {MAX_DEPTH} levels"
                if depth > MAX_DEPTH
                else f"has more than {MAX_ALIASES} aliases"
            )
            raise ScenarioError([Mistake(source, event.start_mark.line + 1, "", what)])


def _walk(node: Node, path: DataPath) -> Iterator[tuple[DataPath, int, str | None]]:
    """Every value with its path, line and problem, in the order of the file."""
    if node.tag not in _PLAIN_TAGS:
        name = str(node.tag).removeprefix(_TAG_PREFIX)
        yield path, _line(node), f"the type '{name}' is not allowed here; use plain text, numbers, lists and mappings"
        return
    yield path, _line(node), None
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index))
    elif isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, ScalarNode) else "?"
            if not isinstance(key, ScalarNode):
                yield path, _line(key), "a key must be plain text"
            elif name in seen:
                yield (*path, name), _line(key), "this key stands here twice; keep one"
            seen.add(name)
            yield (*path, name), _line(key), None
            yield from _walk(value, (*path, name) if key.tag != f"{_TAG_PREFIX}merge" else path)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _value(text: str, source: str) -> Any:
    document = parse_document(f"value: {text}", source) if text.strip() else None
    return document.data["value"] if document else None


def _assigned(data: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `data` with `value` at `path`. Raises `KeyError` where the path leads through a plain value."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, list) and head.isdecimal() and int(head) < len(data):
        items = list(data)
        items[int(head)] = _assigned(items[int(head)], rest, value)
        return items
    if data is None or isinstance(data, dict):
        mapping = dict(data or {})
        mapping[head] = _assigned(mapping.get(head), rest, value)
        return mapping
    raise KeyError(head)
