"""A document into a scenario: every mistake at once, each with its line, its path and what to do about it."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from parbench.base_types import Scaling, Spec
from parbench.errors import Mistake, Unsupported
from parbench.models.base import Family
from parbench.scenario.document import DataPath, Document
from parbench.scenario.exclude import FIELDS
from parbench.scenario.matrix import Variant, nested_model, variant_count, variants
from parbench.scenario.specs import (
    CheckSpec,
    DevicesSpec,
    MeasureSpec,
    Options,
    Scenario,
    StrategySpec,
    WorkloadSettings,
    WorkloadSpec,
    describe_options,
)

S = TypeVar("S", bound=Spec)


MAX_NAME = 100


MAX_TEXT = 10_000


MAX_VARIANTS = 1000


class Unimported(Options):
    """The options of a strategy that could not be imported: nobody knows what they may be."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What a scenario can name: model families and strategies' options.

    `broken` says why a family could not be imported; `unimported` are strategies that could not be.
    """

    families: Mapping[str, type[Family]]
    options: Mapping[str, type[Options]]
    broken: Mapping[str, str] = field(default_factory=dict)
    unimported: Collection[str] = ()


@dataclass
class Draft:
    """A scenario's valid parts, its mistakes, and where each workload and each strategy's label was written."""

    document: Document
    mistakes: list[Mistake]
    workload_paths: dict[str, DataPath] = field(default_factory=dict)
    strategy_paths: dict[str, DataPath] = field(default_factory=dict)
    scenario: Scenario | None = None

    def mistake(self, path: DataPath, message: str) -> None:
        """Notes a mistake at `path`."""
        self.mistakes.append(self.document.mistake(path, message))


def draft_scenario(document: Document, catalogue: Catalogue, *, default_name: str, folder: Path = Path()) -> Draft:
    """Reads every section, whatever is wrong with the others; `draft.scenario` holds the parts that are right.

    Paths in the document start at `folder`, which models are told when they are validated (`context["folder"]`).
    """
    return _Reader(document, catalogue, folder).read(default_name)


class _Reader:
    def __init__(self, document: Document, catalogue: Catalogue, folder: Path) -> None:
        self.document = document
        self.catalogue = catalogue
        self.folder = folder
        self.draft = Draft(document, [])

    def read(self, default_name: str) -> Draft:
        data = self.document.data
        for key in data.keys() - Scenario.model_fields.keys():
            self.draft.mistake((key,), unknown_key(key, Scenario.model_fields))
        self.draft.scenario = Scenario.model_construct(
            name=self._text("name", default_name),
            description=self._text("description", ""),
            workloads=self._workloads(),
            strategies=self._strategies(),
            devices=self._section(DevicesSpec, "devices", single_to_list="counts"),
            scaling=self._scaling(),
            exclude=self._exclude(),
            measure=self._section(MeasureSpec, "measure"),
            check=self._section(CheckSpec, "check"),
        )
        self._require_time(self.draft.scenario.measure)
        return self.draft

    def _require_time(self, measure: MeasureSpec) -> None:
        """A window that alone takes as long as a trial may last: every cell would time out."""
        if measure.window_s >= measure.deadline_s:
            written = [path for key in ("window_s", "deadline_s") if self.document.holds(path := ("measure", key))]
            self.draft.mistake(
                written[0] if written else ("measure",),
                f"window_s {measure.window_s:g} leaves no time for the warm-up before it: it must be less than "
                f"deadline_s {measure.deadline_s:g}, in which a whole trial has to end",
            )

    def _text(self, key: str, default: str) -> str:
        value = self.document.data.get(key, default)
        if isinstance(value, str) and len(value) <= MAX_TEXT:
            return value
        self.draft.mistake((key,), f"must be text of at most {MAX_TEXT:,} characters; got {shown(value)}")
        return default

    def _section(self, model: type[S], key: str, single_to_list: str | None = None) -> S:
        """A section that may be left out; one with mistakes counts as left out while the others are read."""
        data = self.document.data.get(key)
        data = {} if data is None else data
        if isinstance(data, dict) and isinstance(data.get(single_to_list), int):
            data = {**data, str(single_to_list): [data[single_to_list]]}
        return self._validated(model, data, (key,)) or model()

    def _scaling(self) -> tuple[Scaling, ...]:
        value = self.document.data.get("scaling", "strong")
        kinds = value if isinstance(value, list) else [value]
        if kinds and all(kind in get_args(Scaling) for kind in kinds) and len(set(kinds)) == len(kinds):
            return tuple(kinds)
        self.draft.mistake(("scaling",), f"must be strong, weak or [strong, weak]; got {shown(value)}")
        return ("strong",)

    def _exclude(self) -> tuple[dict[str, tuple[Any, ...]], ...]:
        rules = self.document.data.get("exclude")
        if rules is None:
            return ()
        if not isinstance(rules, list):
            self.draft.mistake(
                ("exclude",), f"must be a list of rules such as {{strategy: ddp, devices: 4}}; got {shown(rules)}"
            )
            return ()
        read = [self._rule(rule, ("exclude", index)) for index, rule in enumerate(rules)]
        return tuple(rule for rule in read if rule)

    def _rule(self, rule: Any, path: DataPath) -> dict[str, tuple[Any, ...]]:
        if not isinstance(rule, dict) or not rule:
            self.draft.mistake(path, f"must be a mapping such as {{strategy: ddp, devices: 4}}; got {shown(rule)}")
            return {}
        found: dict[str, tuple[Any, ...]] = {}
        for name, value in rule.items():
            choices = tuple(value) if isinstance(value, list) else (value,)
            if name not in FIELDS:
                self.draft.mistake((*path, name), unknown_key(name, FIELDS))
            elif not all(type(choice) is FIELDS[name] for choice in choices):
                self.draft.mistake((*path, name), f"must be {FIELDS[name].__name__} or a list; got {shown(value)}")
            else:
                found[name] = choices
        return found

    def _workloads(self) -> dict[str, WorkloadSpec]:
        entries = self.document.data.get("workloads")
        if not isinstance(entries, dict) or not entries:
            self.draft.mistake(("workloads",), "is required: a mapping from a name to a workload, at least one")
            return {}
        found: dict[str, WorkloadSpec] = {}
        for key, data in entries.items():
            if ("workloads", key) in self.document.made:
                written = [each for each in entries if ("workloads", each) not in self.document.made]
                self.draft.mistake(("workloads", key), f"there is no workload {shown(key)}{nearest(key, written)}")
                continue
            for name, workload in self._workload_variants(str(key), data):
                if name in found:
                    self.draft.mistake(("workloads", key), f"the variant {name} stands here twice; keep one")
                found[name] = workload
                self.draft.workload_paths[name] = ("workloads", key)
        return found

    def _workload_variants(self, key: str, data: Any) -> Iterable[tuple[str, WorkloadSpec]]:
        path: DataPath = ("workloads", key)
        if not key or len(key) > MAX_NAME:
            self.draft.mistake(path, f"a workload's name has 1 to {MAX_NAME} characters")
        if not isinstance(data, dict):
            self.draft.mistake(path, f"must be a mapping such as {{model: {{kind: lstm}}}}; got {shown(data)}")
            return
        for variant, differences in self._variants(data, WorkloadSpec, path):
            model = self._model(variant.get("model"), (*path, "model"))
            if model is None:
                # What else is wrong with the workload is told at once.
                self._validated(WorkloadSettings, {key: variant[key] for key in variant if key != "model"}, path)
                continue
            workload = self._validated(WorkloadSpec, {**variant, "model": model}, path)
            if workload:
                yield key + describe_options(differences), self._examined(workload, path)

    def _examined(self, workload: WorkloadSpec, path: DataPath) -> WorkloadSpec:
        """The workload with what its model tells only once it is built."""
        try:
            model = workload.model.examined(workload.vocab_size, workload.seq_len, global_batch=workload.global_batch)
        except Unsupported as error:
            self.draft.mistake((*path, "model", *([error.field] if error.field else [])), str(error))
            return workload
        return workload.model_copy(update={"model": model})

    def _model(self, data: Any, path: DataPath) -> Family | None:
        if not isinstance(data, dict) or "kind" not in data:
            kinds = ", ".join(self.catalogue.families)
            self.draft.mistake(path, f"is required: a mapping with a kind ({kinds}) and its sizes")
            return None
        family = self._named(data["kind"], self.catalogue.families, (*path, "kind"), "model family")
        return self._validated(family, data, path) if family else None

    def _strategies(self) -> tuple[StrategySpec, ...]:
        entries = self.document.data.get("strategies")
        if not isinstance(entries, list) or not entries:
            self.draft.mistake(("strategies",), "is required: a list of at least one strategy")
            return ()
        found: list[tuple[str, Options, DataPath]] = []
        for index, entry in enumerate(entries):
            for name, options in self._strategy_variants(entry, ("strategies", index)):
                if any((name, options) == (other, others) for other, others, _ in found):
                    self.draft.mistake(
                        ("strategies", index), f"{name} stands here twice with the same options; keep one"
                    )
                else:
                    found.append((name, options, ("strategies", index)))
        return tuple(self._labelled(found))

    def _strategy_variants(self, entry: Any, path: DataPath) -> Iterable[tuple[str, Options]]:
        name, data = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, {})
        if not isinstance(name, str):
            self.draft.mistake(path, f"must be a strategy's name, or one name with its options; got {shown(entry)}")
            return
        # One that cannot be imported costs its own cells: the rest can be measured.
        model = (
            Unimported
            if name in self.catalogue.unimported
            else self._named(name, self.catalogue.options, path, "strategy")
        )
        if model is None:
            return
        if data is not None and not isinstance(data, dict):
            self.draft.mistake((*path, name), f"options must be a mapping; got {shown(data)}")
            return
        for variant, _ in self._variants(data or {}, model, path):
            options = self._validated(model, variant, (*path, name) if isinstance(entry, dict) else path)
            if options is not None:
                yield name, options

    def _variants(self, data: dict[str, Any], model: type[Spec], path: DataPath) -> Iterable[Variant]:
        """The variants of a matrix; too many of them are a mistake, and a few lists are enough for that."""
        if variant_count(data, model) > MAX_VARIANTS:
            self.draft.mistake(path, f"its lists make more than {MAX_VARIANTS:,} variants; split it or leave some out")
            return ()
        return variants(data, model)

    def _labelled(self, found: list[tuple[str, Options, DataPath]]) -> Iterable[StrategySpec]:
        for name, options, path in found:
            others = [other for other_name, other, _ in found if other_name == name and other != options]
            differing = {
                key: value
                for key, value in options
                if key in options.model_fields_set and any(getattr(other, key, None) != value for other in others)
            }
            label = name + describe_options(differing)
            self.draft.strategy_paths[label] = path
            yield StrategySpec(name=name, options=options, label=label)

    def _named(self, name: Any, known: Mapping[str, type[S]], path: DataPath, what: str) -> type[S] | None:
        if isinstance(name, str) and name in known:
            return known[name]
        if isinstance(name, str) and name in self.catalogue.broken:
            self.draft.mistake(path, f"{what} '{name}' could not be imported: {self.catalogue.broken[name]}")
        else:
            self.draft.mistake(path, f"there is no {what} {shown(name)}{nearest(str(name), known)}")
        return None

    def _validated(self, model: type[S], data: Any, path: DataPath) -> S | None:
        try:
            return model.model_validate(data, context={"folder": self.folder})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                written = self._written(path, detail)
                self.draft.mistake(written, _explained(detail, model, data))
            return None

    def _written(self, path: DataPath, detail: ErrorDetails) -> DataPath:
        """The path in the file: pydantic's locations also name the branches of unions, which nobody wrote."""
        for step in detail["loc"]:
            longer = (*path, step)
            if self.document.holds(longer):
                path = longer
        if detail["type"] in ("missing", "extra_forbidden") and path[-1] != detail["loc"][-1]:
            path = (*path, detail["loc"][-1])
        return path


def _explained(detail: ErrorDetails, model: type[Spec], data: Any) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(str(detail["loc"][-1]), _fields_at(model, data, detail["loc"][:-1]))
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return f"needs the key {context['discriminator']}"
        case "union_tag_invalid":
            return f"{context['discriminator']} must be one of {context['expected_tags']}; got {shown(context['tag'])}"
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type":
            return f"must be a mapping; got {shown(detail['input'])}"
        case "tuple_type":
            return f"must be a list; got {shown(detail['input'])}"
        case _:
            # pydantic's sentences read "Input should be …", "String should match …", "Tuple should have …".
            subject, should, expectation = detail["msg"].partition(" should ")
            sentence = f"must {expectation.replace('be a valid ', 'be ', 1)}" if should else subject
            return f"{sentence}; got {shown(detail['input'])}"


def _fields_at(model: type[Spec], data: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that are known at `location`."""
    current: Any = model
    for step in location:
        if isinstance(data, dict) and step in data and step in current.model_fields:
            data = data[step]
            current = nested_model(current.model_fields[step].annotation, data) or current
    return list(current.model_fields)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The sentence for a key that nobody knows."""
    return f"unknown key{nearest(key, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What was probably meant, or else all there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(names) or 'none'}"


def shown(value: Any) -> str:
    """A value as a message shows it: short, and quoted where it is text."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
