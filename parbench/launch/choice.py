"""Selects the launcher: by name, else by the environment, else the one for this machine."""

from collections.abc import Callable

from parbench.errors import UsageError
from parbench.launch.base import LAUNCHERS, Launcher, Site

DEFAULT = "local"


def choose(name: str | None, site: Site, say: Callable[[str], None]) -> Launcher:
    """The launcher for a site; `say` prints which one the environment selects. Raises `UsageError` if unclear."""
    return choose_class(name, say).at(site)


def choose_class(name: str | None, say: Callable[[str], None]) -> type[Launcher]:
    """The class of the launcher that `name` or, without a name, the environment selects."""
    if name is not None:
        if name not in LAUNCHERS and name not in LAUNCHERS.broken:
            raise UsageError(f"--launcher: there is no '{name}'; choose from {', '.join(LAUNCHERS)}")
        return LAUNCHERS[name]
    reasons = {each: why for each, cls in sorted(LAUNCHERS.classes().items()) if (why := cls.detected())}
    if len(reasons) > 1:
        candidates = "; ".join(f"{each}, because {why}" for each, why in reasons.items())
        raise UsageError(f"the environment fits several launchers: {candidates}; choose one with --launcher")
    for each, why in reasons.items():
        say(f"Launcher {each}, because {why}; --launcher {DEFAULT} measures on this machine alone")
    return LAUNCHERS[next(iter(reasons), DEFAULT)]
