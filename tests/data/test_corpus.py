import hashlib
import os
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy
import pytest

from parbench.data import bpe, corpus
from parbench.data.corpus import cache_folder, prepare, standard_library_files
from parbench.data.sources import BytePairs, StandardLibraryText, SyntheticTokens, TextFile
from parbench.errors import ResultsError, UsageError

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
    assert (corpus.vocab_size, corpus.dtype, corpus.tokens) == (256, "uint8", len(content))
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


@pytest.mark.parametrize("path", ["absent.txt", "absent/folder/", "x" * 300, "~no-such-user-here/text.txt"])
def test_a_text_that_cannot_be_read_is_a_sentence(tmp_path, path):
    with pytest.raises(UsageError, match=r"data\.path: .* cannot be read: "):
        prepared(TextFile(path=path), tmp_path)


def test_a_folder_is_all_files_in_it_that_match_in_the_order_of_their_paths(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "a/other.md", "c.txt.bak"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(f"<{name}>")
    (tmp_path / "texts" / "folder.txt").mkdir()
    assert content(TextFile(path="texts"), tmp_path) == b"<a/b/c.txt><a/z.txt><b.txt>"
    assert content(TextFile(path="texts", files="*/*"), tmp_path) == b"<a/other.md><a/z.txt>"
    assert content(TextFile(path="texts/a/other.md", files="*.txt"), tmp_path) == b"<a/other.md>"


def content(data: TextFile, folder: Path) -> bytes:
    return Path(prepared(data, folder).path).read_bytes()


def test_a_folder_without_a_file_that_matches_is_a_sentence(tmp_path):
    (tmp_path / "texts").mkdir()
    with pytest.raises(UsageError, match=r"data\.files: no file below .*texts matches \*\.rst"):
        prepared(TextFile(path="texts", files="*.rst"), tmp_path)


@pytest.mark.parametrize("pattern", ["/etc/*", "**.txt"])
def test_a_pattern_that_is_none_is_a_sentence(tmp_path, pattern):
    if pattern == "**.txt" and sys.version_info >= (3, 13):
        pytest.skip("since Python 3.13 this is a pattern")
    with pytest.raises(UsageError, match=r"data\.files: .* is not a pattern of relative paths"):
        prepared(TextFile(path=".", files=pattern), tmp_path)


def test_an_unreadable_file_in_a_folder_is_named(tmp_path):
    (tmp_path / "whole.txt").write_text("x" * 100)
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"data\.path: .*dangling\.txt cannot be read: No such file"):
        prepared(TextFile(path="."), tmp_path)


def test_a_folder_is_read_up_to_a_limit_for_all_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_TEXT_BYTES", 100)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x" * 50)
    assert content(TextFile(path="."), tmp_path) == b"x" * 100
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(
        UsageError,
        match=r"data\.files: the files below .* that match \*\*/\*\.txt have 101 bytes together; at most 100 are read",
    ):
        prepared(TextFile(path="."), tmp_path)


def test_byte_pairs_of_the_largest_text_still_fit_the_cache(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="byte pairs need the extra tokenizers")
    monkeypatch.setattr(corpus, "MAX_TEXT_BYTES", len(PROSE))
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=256)})
    first = prepared(data, tmp_path)
    monkeypatch.setattr(bpe, "encode", lambda *_: pytest.fail("encoded a second time"))
    assert prepared(data, tmp_path) == first


@pytest.fixture
def tokenizers():
    return pytest.importorskip("tokenizers", reason="byte pairs need the extra tokenizers")


PROSE = "the cat sat on the mat, the café at thé mat\n".encode() * 40


@pytest.mark.usefixtures("tokenizers")
def test_byte_pairs_make_fewer_tokens_below_the_vocabulary(tmp_path):
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=280)})
    corpus = prepared(data, tmp_path)
    tokens = numpy.fromfile(corpus.path, dtype="<i4")
    assert (corpus.vocab_size, corpus.dtype, corpus.tokens) == (280, "int32", len(tokens))
    assert len(tokens) < len(PROSE) / 2
    assert 256 <= tokens.max() < 280
    assert tokens.min() >= 0


@pytest.mark.usefixtures("tokenizers")
def test_a_vocabulary_is_as_large_as_it_says_even_where_the_text_has_fewer_pairs(tmp_path):
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=50_000)})
    assert prepared(data, tmp_path).vocab_size == 50_000


@pytest.mark.usefixtures("tokenizers")
def test_with_no_room_for_pairs_every_byte_is_a_token(tmp_path):
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=256)})
    assert prepared(data, tmp_path).tokens == len(PROSE)


@pytest.mark.usefixtures("tokenizers")
def test_any_bytes_can_be_encoded():
    assert len(bpe.encode(bytes(range(256)) * 4, 300)) % 4 == 0


@pytest.mark.usefixtures("tokenizers")
def test_tokens_are_the_same_in_every_process():
    script = f"import sys; from parbench.data.bpe import encode; sys.stdout.buffer.write(encode({PROSE!r}, 300))"
    others = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "4"))
    ]
    assert others == [bpe.encode(PROSE, 300)] * 2


@pytest.mark.usefixtures("tokenizers")
def test_a_text_is_encoded_once(tmp_path, own_cache, monkeypatch):
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=280)})
    first = prepared(data, tmp_path)
    encode, calls = bpe.encode, []
    monkeypatch.setattr(bpe, "encode", lambda *arguments: calls.append(arguments) or encode(*arguments))
    assert prepared(data, tmp_path) == first
    assert calls == []
    other = data.model_copy(update={"bpe": BytePairs(vocab_size=270)})
    assert prepared(other, tmp_path).sha256 != first.sha256
    assert len(calls) == 1


@pytest.mark.usefixtures("tokenizers")
@pytest.mark.parametrize(
    ("pattern", "damage"), [("*.tokens", b"damaged"), ("*.bpe", b"\xff"), ("*.bpe", b"../../secret"), ("*.bpe", b"")]
)
def test_damage_in_the_cache_of_byte_pairs_is_repaired(tmp_path, own_cache, pattern, damage):
    data = text_file(tmp_path, PROSE).model_copy(update={"bpe": BytePairs(vocab_size=280)})
    first = prepared(data, tmp_path)
    before = Path(first.path).read_bytes()
    (damaged,) = own_cache.rglob(pattern)
    damaged.write_bytes(damage)
    assert prepared(data, tmp_path) == first
    assert Path(first.path).read_bytes() == before


def test_without_the_library_byte_pairs_are_a_sentence(monkeypatch):
    monkeypatch.setattr("parbench.data.sources.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the tokenizers library: pip install 'parbench\[tokenizers\]'"):
        BytePairs()


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
    with pytest.raises(ResultsError, match=r"token file cannot be written to .*; set PARBENCH_CACHE"):
        prepared(text_file(tmp_path), tmp_path)


def test_a_cache_without_room_keeps_no_half_file(tmp_path, own_cache):
    data = text_file(tmp_path, b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResultsError, match=r"token file cannot be written to .*File too large"):
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
