import sys
from importlib.metadata import EntryPoint

import pytest

from parbench import registry as module
from parbench.errors import PluginError
from parbench.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes the package `plugs` of the modules that are written, and a registry of it with these entry points."""
    (tmp_path / "plugs").mkdir()
    (tmp_path / "plugs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def make(modules: dict[str, str], entry_points: dict[str, str] | None = None) -> Registry[object]:
        for name, text in modules.items():
            (tmp_path / "plugs" / f"{name}.py").write_text(text)
        points = [EntryPoint(name, value, "plugs") for name, value in (entry_points or {}).items()]
        monkeypatch.setattr(module, "entry_points", lambda group: [point for point in points if point.group == group])
        registry: Registry[object] = Registry("plugs")
        monkeypatch.setattr("builtins.plugs_registry", registry, raising=False)
        return registry

    yield make
    for name in set(sys.modules) - known:
        del sys.modules[name]


def adding(name: str) -> str:
    return f"class Plug:\n    pass\n\nplugs_registry.add('{name}', Plug)\n"


def test_every_module_of_the_package_is_imported_when_a_name_is_asked_for(package):
    registry = package({"two": adding("second"), "one": adding("first")})
    assert "plugs.one" not in sys.modules
    assert registry.names() == list(registry) == ["first", "second"]
    assert registry["first"].__module__ == "plugs.one"
    assert "second" in registry
    assert "third" not in registry


def test_an_unknown_name_is_answered_with_all_that_are_known(package):
    registry = package({"one": adding("first"), "two": adding("second")})
    with pytest.raises(PluginError, match=r"^plugs: there is no 'third'; known are first, second$"):
        registry["third"]


def test_an_entry_point_adds_its_class(package):
    registry = package({}, {"text": "textwrap:TextWrapper"})
    registry.add("text", str)
    assert registry["text"] is str
    assert registry.broken == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("def", "SyntaxError: invalid syntax"),
        ("", "AttributeError: module 'broken_plugin' has no attribute 'Plug'"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_shown_and_leaves_the_rest(package, tmp_path, text, reason):
    (tmp_path / "broken_plugin.py").write_text(text)
    registry = package({"one": adding("first")}, {"broken": "broken_plugin:Plug"})
    assert registry.names() == ["first"]
    assert registry.broken["broken"].startswith(reason)
    assert registry.broken["broken"].endswith("(package unknown, broken_plugin:Plug)")
    with pytest.raises(PluginError, match=r"'broken' could not be imported: \w+: "):
        registry["broken"]


def test_ctrl_c_ends_the_search_for_plug_ins(package, tmp_path):
    (tmp_path / "slow_plugin.py").write_text("raise KeyboardInterrupt")
    registry = package({}, {"slow": "slow_plugin:Plug"})
    with pytest.raises(KeyboardInterrupt):
        registry.names()


def test_a_built_in_that_cannot_be_imported_is_an_error(package):
    with pytest.raises(ZeroDivisionError):
        package({"one": "1 / 0"}).names()


def test_two_classes_cannot_have_one_name(package):
    registry = package({"one": adding("plug"), "two": adding("plug")})
    with pytest.raises(PluginError, match=r"plugs\.two\.Plug takes the name 'plug' of plugs\.one\.Plug; rename one"):
        registry.names()


def test_a_class_that_is_defined_again_takes_its_own_place(package):
    registry = package({})

    def define() -> type:
        class Again:
            pass

        return Again

    first, second = define(), define()
    registry.add("again", first)
    registry.add("again", second)
    assert registry["again"] is second
