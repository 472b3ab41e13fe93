"""Reads a document into a scenario. All its mistakes are found at once, each with its line, its path and a sentence."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict

from parbench.base_types import Spec
from parbench.errors import Mistake, Unsupported
from parbench.models.base import Family
from parbench.scenario.document import DataPath, Document
from parbench.scenario.matrix import Variant, variant_count, variants
from parbench.scenario.sentences import quote, suggest
from parbench.scenario.specs import (
    MAX_NAME,
    MeasureSpec,
    Options,
    Scenario,
    StrategySpec,
    WorkloadSettings,
    WorkloadSpec,
    describe_options,
)
from parbench.scenario.validation import Validator

S = TypeVar("S", bound=Spec)


MAX_VARIANTS = 1000


class Unimported(Options):
    """The options of a strategy that could not be imported. Any are accepted, because its own are unknown."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What a scenario can name: model families, and strategies with the type of their options.

    `broken` maps families that could not be imported to the reason; `unimported` names such strategies.
    """

    families: Mapping[str, type[Family]]
    options: Mapping[str, type[Options]]
    broken: Mapping[str, str] = field(default_factory=dict)
    unimported: Collection[str] = ()


@dataclass
class Draft:
    """A scenario made of a document's valid parts, and the document's mistakes.

    The paths say where in the document each workload stands, and each strategy by its label.
    """

    document: Document
    mistakes: list[Mistake]
    workload_paths: dict[str, DataPath] = field(default_factory=dict)
    strategy_paths: dict[str, DataPath] = field(default_factory=dict)
    scenario: Scenario | None = None

    def mistake(self, path: DataPath, message: str) -> None:
        """Adds a mistake at `path`."""
        self.mistakes.append(self.document.mistake(path, message))


def draft_scenario(document: Document, catalogue: Catalogue, *, default_name: str, folder: Path = Path()) -> Draft:
    """Reads every part of the document, also where others have mistakes; `Draft.scenario` has the valid ones.

    Relative paths in the document start at `folder`.
    """
    return _Reader(document, catalogue, folder).read(default_name)


class _StrategyVariant(NamedTuple):
    name: str
    options: Options
    path: DataPath


class _Reader:
    def __init__(self, document: Document, catalogue: Catalogue, folder: Path) -> None:
        self.document = document
        self.catalogue = catalogue
        self.draft = Draft(document, [])
        self.validator = Validator(document, folder, self.draft.mistakes)

    def read(self, default_name: str) -> Draft:
        named_by_catalogue = {"workloads": self._workloads(), "strategies": self._strategies()}
        self.draft.scenario = self.validator.validate_scenario(
            {**self.document.data, **named_by_catalogue}, defaults={"name": default_name}
        )
        self._require_warmup_time(self.draft.scenario.measure)
        return self.draft

    def _require_warmup_time(self, measure: MeasureSpec) -> None:
        """A window that takes as long as a trial may last is a mistake: every cell would time out."""
        if measure.window_s >= measure.deadline_s:
            paths: list[DataPath] = [("measure", key) for key in ("window_s", "deadline_s")]
            self.draft.mistake(
                next(filter(self.document.holds, paths), ("measure",)),
                f"window_s {measure.window_s:g} leaves no time for the warm-up before it: it must be less than "
                f"deadline_s {measure.deadline_s:g}, in which a whole trial has to end",
            )

    def _workloads(self) -> dict[str, WorkloadSpec]:
        entries = self.document.data.get("workloads")
        if not isinstance(entries, dict) or not entries:
            self.draft.mistake(("workloads",), "is required: a mapping from a name to a workload, at least one")
            return {}
        workloads: dict[str, WorkloadSpec] = {}
        for key, data in entries.items():
            # An override sets a part of a workload that the file does not have.
            if ("workloads", key) in self.document.implied:
                keys = [each for each in entries if ("workloads", each) not in self.document.implied]
                self.draft.mistake(("workloads", key), f"there is no workload {quote(key)}{suggest(key, keys)}")
                continue
            for name, workload in self._workload_variants(str(key), data):
                if name in workloads:
                    self.draft.mistake(("workloads", key), f"the variant {name} stands here twice; keep one")
                workloads[name] = workload
                self.draft.workload_paths[name] = ("workloads", key)
        return workloads

    def _workload_variants(self, key: str, data: Any) -> Iterator[tuple[str, WorkloadSpec]]:
        path: DataPath = ("workloads", key)
        if not key or len(key) > MAX_NAME:
            self.draft.mistake(path, f"a workload's name has 1 to {MAX_NAME} characters")
        if not isinstance(data, dict):
            self.draft.mistake(path, f"must be a mapping such as {{model: {{kind: lstm}}}}; got {quote(data)}")
            return
        for variant, differences in self._variants(data, WorkloadSpec, path):
            model = self._model(variant.get("model"), (*path, "model"))
            if model is None:
                # The rest of the workload is validated without its model, to find its mistakes as well.
                settings = {name: value for name, value in variant.items() if name != "model"}
                self.validator.validate(WorkloadSettings, settings, path)
                continue
            workload = self.validator.validate(WorkloadSpec, {**variant, "model": model}, path)
            if workload:
                yield key + describe_options(differences), self._examine_model(workload, path)

    def _model(self, data: Any, path: DataPath) -> Family | None:
        if not isinstance(data, dict) or "kind" not in data:
            kinds = ", ".join(self.catalogue.families)
            self.draft.mistake(path, f"is required: a mapping with a kind ({kinds}) and its sizes")
            return None
        family = self._look_up(data["kind"], self.catalogue.families, (*path, "kind"), "model family")
        return self.validator.validate(family, data, path) if family else None

    def _examine_model(self, workload: WorkloadSpec, path: DataPath) -> WorkloadSpec:
        """The workload, with what is known of its model only once it is built."""
        try:
            model = workload.model.examined(workload.vocab_size, workload.seq_len, global_batch=workload.global_batch)
        except Unsupported as error:
            self.draft.mistake((*path, "model", *([error.field] if error.field else [])), str(error))
            return workload
        return workload.model_copy(update={"model": model})

    def _strategies(self) -> tuple[StrategySpec, ...]:
        entries = self.document.data.get("strategies")
        if not isinstance(entries, list) or not entries:
            self.draft.mistake(("strategies",), "is required: a list of at least one strategy")
            return ()
        strategies: list[_StrategyVariant] = []
        for index, entry in enumerate(entries):
            path: DataPath = ("strategies", index)
            for name, options in self._strategy_variants(entry, path):
                if any((name, options) == (other.name, other.options) for other in strategies):
                    self.draft.mistake(path, f"{name} stands here twice with the same options; keep one")
                else:
                    strategies.append(_StrategyVariant(name, options, path))
        return tuple(self._label(strategies))

    def _strategy_variants(self, entry: Any, path: DataPath) -> Iterator[tuple[str, Options]]:
        name, data = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, {})
        if not isinstance(name, str):
            self.draft.mistake(path, f"must be a strategy's name, or one name with its options; got {quote(entry)}")
            return
        # A strategy that could not be imported loses its own cells, and the others are measured.
        model = (
            Unimported
            if name in self.catalogue.unimported
            else self._look_up(name, self.catalogue.options, path, "strategy")
        )
        if model is None:
            return
        if data is not None and not isinstance(data, dict):
            self.draft.mistake((*path, name), f"options must be a mapping; got {quote(data)}")
            return
        for variant, _ in self._variants(data or {}, model, path):
            options = self.validator.validate(model, variant, (*path, name) if isinstance(entry, dict) else path)
            if options is not None:
                yield name, options

    def _label(self, strategies: list[_StrategyVariant]) -> Iterator[StrategySpec]:
        """Labels each variant with its name and those options by which it differs from others of the name."""
        for name, options, path in strategies:
            others = [other.options for other in strategies if other.name == name and other.options != options]
            differences = {
                key: value
                for key, value in options
                if key in options.model_fields_set and any(getattr(other, key, None) != value for other in others)
            }
            label = name + describe_options(differences)
            self.draft.strategy_paths[label] = path
            yield StrategySpec(name=name, options=options, label=label)

    def _variants(self, data: dict[str, Any], model: type[Spec], path: DataPath) -> Iterable[Variant]:
        """The variants of a matrix. More than `MAX_VARIANTS`, which a few lists make, are a mistake."""
        if variant_count(data, model) > MAX_VARIANTS:
            self.draft.mistake(path, f"its lists make more than {MAX_VARIANTS:,} variants; split it or leave some out")
            return ()
        return variants(data, model)

    def _look_up(self, name: Any, classes: Mapping[str, type[S]], path: DataPath, noun: str) -> type[S] | None:
        if isinstance(name, str) and name in classes:
            return classes[name]
        if isinstance(name, str) and name in self.catalogue.broken:
            self.draft.mistake(path, f"{noun} '{name}' could not be imported: {self.catalogue.broken[name]}")
        else:
            self.draft.mistake(path, f"there is no {noun} {quote(name)}{suggest(str(name), classes)}")
        return None
