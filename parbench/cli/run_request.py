"""What `parbench run` was asked for: which scenarios, with which changes, into which folders, launched where."""

import contextlib
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parbench.campaign.run import folder_name, new_folder
from parbench.cli.console import say
from parbench.errors import UnwrittenError, UsageError
from parbench.plan.reading import read_plan
from parbench.results.store import RUN_FILE, latest_of
from parbench.system.signals import Interrupted

if TYPE_CHECKING:
    from parbench.plan.cells import Plan
    from parbench.system.devices import Machine


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The options of `parbench run` that decide what is measured and where; `site` are those of `Site`."""

    scenarios: tuple[Path, ...]
    overrides: tuple[str, ...]
    only: tuple[str, ...]
    out: Path | None
    results: Path
    resume: bool
    launcher: str | None
    site: Mapping[str, Any]

    @classmethod
    def from_options(cls, options: Mapping[str, Any], rounds: int | None, *, trace: bool) -> "RunRequest":
        """The request in a command's options; `rounds` and `trace` are short for overrides."""
        own = {field.name for field in fields(cls)}
        values = {name: value for name, value in options.items() if name in own}
        if trace:
            values["overrides"] = (*values["overrides"], "measure.trace=true")
        if rounds is not None:
            values["overrides"] = (*values["overrides"], f"measure.rounds={rounds}")
        return cls(**values, site={name: value for name, value in options.items() if name not in own})

    def plans(self, machine: "Machine") -> "list[Plan]":
        """The plans of the scenarios on a machine, with the cells of `--only`. Raises `UsageError`."""
        return [read_plan(path, machine, self.overrides).only(*self.only) for path in self.scenarios]

    def folder(self, scenario: str) -> Path:
        """The folder of a scenario's run: in `--out`, the latest run to resume, or a new one below `--results`."""
        if self.out is not None:
            return self.out / folder_name(scenario) if len(self.scenarios) > 1 else self.out
        latest = latest_of(scenario, self.results, say) if self.resume else None
        return latest or new_folder(self.results, scenario)

    def require_separate_folders(self, scenarios: list[str]) -> None:
        """Raises `UsageError` where two scenarios have one folder, which new ones below `--results` never do."""
        counts = Counter(map(folder_name, scenarios)) if self.out or self.resume else {}
        for folder, count in counts.items():
            if count > 1:
                raise UsageError(
                    f"{count} of these scenarios would be kept in one folder, '{folder}'; "
                    "give them other names, or run them one after another, each with an --out of its own"
                )

    def resume_arguments(self, path: Path, folder: Path) -> list[str]:
        """The arguments with which parbench resumes the same cells of one scenario in `folder`."""
        overrides = [word for override in self.overrides for word in ("--set", override)]
        globs = [word for glob in self.only for word in ("--only", glob)]
        return ["run", str(path), "--resume", "--out", str(folder), *overrides, *globs]

    def site_arguments(self) -> list[str]:
        """The options that say where to launch, as arguments."""
        options = {"launcher": self.launcher, **self.site}
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
        return [word for pair in pairs for word in pair]

    @contextlib.contextmanager
    def tidy(self, folder: Path) -> Iterator[None]:
        """Removes `folder` at the end if the request made it and nothing was put into it."""
        try:
            yield
        finally:
            if self.out is None:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    @contextlib.contextmanager
    def resume_advice(self, path: Path, folder: Path) -> Iterator[None]:
        """Adds to an interruption or a full disk how to resume the run in `folder`."""
        command = shlex.join(["parbench", *self.resume_arguments(path, folder), *self.site_arguments()])
        advice = f"what was measured is kept; go on with: {command}"
        try:
            yield
        except Interrupted as interruption:
            interruption.advice = f"; {advice}" if (folder / RUN_FILE).exists() else "; nothing was measured"
            raise
        except UnwrittenError as error:
            if not (folder / RUN_FILE).exists():
                raise
            raise UnwrittenError(f"{error}; make room there: {advice}") from None


def this_command() -> list[str]:
    """The command line of this process, as records keep it."""
    return ["parbench", *sys.argv[1:]]
