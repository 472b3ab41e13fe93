import hashlib
import resource
import sysconfig
from pathlib import Path

import numpy
import pytest

from parbench.errors import ResultsError, UsageError
from parbench.scenario import StandardLibraryText, SyntheticTokens, TextFile
from parbench.workloads.corpus import BYTE_VOCABULARY, cache_folder, prepare, standard_library_files

TEXT = b"caf\xc3\xa9 \x00\xff " * 10


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("PARBENCH_CACHE", str(folder))
    return folder


def prepared(data, folder: Path = Path(), *, seq_len: int = 4, seed: int = 0):
    return prepare(data, seq_len=seq_len, seed=seed, folder=folder)


def text_file(folder: Path, content: bytes = TEXT, name: str = "text.txt") -> TextFile:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return TextFile(path=name)


def test_the_standard_library_is_real_text_and_always_the_same():
    corpus = prepared(StandardLibraryText(), seq_len=64)
    content = Path(corpus.path).read_bytes()
    assert corpus == prepared(StandardLibraryText(), seq_len=64)
    assert (corpus.vocab_size, corpus.dtype, corpus.tokens) == (BYTE_VOCABULARY, "uint8", len(content))
    assert corpus.tokens > 1_000_000
    assert b"class JSONDecoder" in content
    assert corpus.sha256 == hashlib.sha256(content).hexdigest()


def test_the_standard_library_is_without_tests_and_installed_packages():
    root = Path(sysconfig.get_path("stdlib"))
    names = [path.relative_to(root).as_posix() for path in standard_library_files()]
    assert names == sorted(names, key=lambda name: Path(name).parts)
    assert "json/decoder.py" in names
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]


def test_a_text_is_its_bytes_and_its_path_starts_at_the_scenarios_folder(tmp_path, monkeypatch):
    data = text_file(tmp_path / "scenarios")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    corpus = prepared(data, tmp_path / "scenarios")
    assert Path(corpus.path).read_bytes() == TEXT
    assert (corpus.tokens, corpus.vocab_size, corpus.dtype) == (len(TEXT), 256, "uint8")
    assert corpus.sha256 == hashlib.sha256(TEXT).hexdigest()


def test_a_path_may_be_absolute_or_start_at_home(tmp_path, monkeypatch):
    text_file(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    absolute = prepared(TextFile(path=str(tmp_path / "home" / "text.txt")), tmp_path / "nowhere")
    assert prepared(TextFile(path="~/text.txt"), tmp_path / "nowhere") == absolute


@pytest.mark.parametrize("path", ["absent.txt", "folder", "x" * 300, "~no-such-user-here/text.txt"])
def test_a_text_that_cannot_be_read_is_a_sentence(tmp_path, path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"data\.path: .* cannot be read: "):
        prepared(TextFile(path=path), tmp_path)


@pytest.mark.parametrize("size", [0, 1, 9])
def test_a_text_that_is_too_short_says_how_long_it_must_be(tmp_path, size):
    data = text_file(tmp_path, b"x" * size)
    with pytest.raises(UsageError, match=f"has {size} tokens; seq_len 4 needs at least 10"):
        prepared(data, tmp_path)


def test_the_shortest_text_is_long_enough(tmp_path):
    assert prepared(text_file(tmp_path, b"x" * 10), tmp_path).tokens == 10


def test_synthetic_tokens_are_too_few_by_their_number_and_not_by_their_bytes():
    with pytest.raises(UsageError, match="has 9 tokens"):
        prepared(SyntheticTokens(vocab_size=10, tokens=9))


def test_synthetic_tokens_are_drawn_from_the_whole_vocabulary_by_seed():
    data = SyntheticTokens(vocab_size=1000, tokens=20_000)
    corpus = prepared(data, seed=3)
    tokens = numpy.fromfile(corpus.path, dtype="<i4")
    assert (corpus.tokens, corpus.vocab_size, corpus.dtype) == (20_000, 1000, "int32")
    assert len(tokens) == 20_000
    assert set(tokens.tolist()) == set(range(1000))
    assert corpus.sha256 == hashlib.sha256(tokens.tobytes()).hexdigest()
    assert prepared(data, seed=3) == corpus
    assert prepared(data, seed=4).sha256 != corpus.sha256


def test_the_cache_holds_a_file_for_each_content_and_nothing_else(tmp_path, own_cache):
    first = prepared(text_file(tmp_path), tmp_path)
    modified = Path(first.path).stat().st_mtime_ns
    again = prepared(text_file(tmp_path, name="copy.txt"), tmp_path)
    other = prepared(text_file(tmp_path, TEXT + b"!", name="other.txt"), tmp_path)
    assert again == first
    assert Path(first.path).stat().st_mtime_ns == modified
    assert {path.name for path in own_cache.rglob("*") if path.is_file()} == {
        f"{first.sha256}.tokens",
        f"{other.sha256}.tokens",
    }


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"?" * len(content)])
def test_a_damaged_file_in_the_cache_is_replaced(tmp_path, damage):
    data = text_file(tmp_path)
    path = Path(prepared(data, tmp_path).path)
    path.write_bytes(damage(TEXT))
    assert Path(prepared(data, tmp_path).path).read_bytes() == TEXT


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResultsError, match=r"token file cannot be kept in .*; set PARBENCH_CACHE"):
        prepared(text_file(tmp_path), tmp_path)


def test_a_cache_without_room_keeps_no_half_file(tmp_path, own_cache):
    data = text_file(tmp_path, b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResultsError, match=r"token file cannot be kept in .*File too large"):
            prepared(data, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PARBENCH_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"PARBENCH_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/parbench"),
        ({"PARBENCH_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/parbench"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
