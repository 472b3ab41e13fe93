"""Which launcher: the one that is named, else what the environment asks for, else this machine."""

from collections.abc import Callable

from parbench.errors import UsageError
from parbench.launch.base import LAUNCHERS, Launcher, Site

DEFAULT = "local"


def choose(name: str | None, site: Site, say: Callable[[str], None]) -> Launcher:
    """The launcher, at its site; `say` hears of one that nobody named. Raises `UsageError` where it is not clear."""
    return chosen(name, say).at(site)


def chosen(name: str | None, say: Callable[[str], None]) -> type[Launcher]:
    """The kind of launcher."""
    if name is not None:
        if name not in LAUNCHERS and name not in LAUNCHERS.broken:
            raise UsageError(f"--launcher: there is no '{name}'; choose from {', '.join(LAUNCHERS)}")
        return LAUNCHERS[name]
    asked = {each: why for each, cls in sorted(LAUNCHERS.classes().items()) if (why := cls.detected())}
    if len(asked) > 1:
        both = "; ".join(f"{each}, because {why}" for each, why in asked.items())
        raise UsageError(f"several launchers could be meant: {both}; choose one with --launcher")
    for each, why in asked.items():
        say(f"Launcher {each}, because {why}; --launcher {DEFAULT} measures on this machine alone")
    return LAUNCHERS[next(iter(asked), DEFAULT)]
