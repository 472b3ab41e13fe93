"""What plug-ins from before import is still there."""

import importlib
import sys

import pytest

from parbench import MOVED

# Each with a name that plug-ins take from it.
NAMES = {
    "parbench.devices": "DeviceKind",
    "parbench.workloads": "__doc__",
    "parbench.workloads.base": "Family",
    "parbench.workloads.whole": "WholeFamily",
    "parbench.scenario": "WorkloadSpec",
    "parbench.strategies.base": "Strategy",
    "parbench.launch.base": "Launcher",
    "parbench.errors": "Unsupported",
}


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_module_that_moved_hands_on_what_plug_ins_import_and_says_where_it_is(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        module = importlib.import_module(old)
    assert getattr(module, NAMES[old]) is getattr(importlib.import_module(new), NAMES[old])


@pytest.mark.parametrize("module", sorted(NAMES.keys() - MOVED.keys()))
def test_modules_that_plug_ins_import_stay_where_they_are(module: str) -> None:
    assert hasattr(importlib.import_module(module), NAMES[module])


def test_nothing_else_is_found_under_the_old_names() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("parbench.workloads.nothing")
