"""The command line from outside, as a process."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from parbench.cli.main import cli
from tests.conftest import CommandLine
from tests.support.scenarios import TINY_LSTM

REPOSITORY = Path(__file__).parents[2]
SCENARIO = (
    "\nname: tiny"
    + TINY_LSTM
    + """    optimizer: {name: adam, lr: 1e-2}
strategies: [single, task_pool]
devices: {kind: cpu, counts: [1]}
measure: {rounds: 2, warmup: 5, window_s: 0.001, deadline_s: 600}
"""
)
WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "torch" else super().find_spec(name, path, target)

sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
from parbench.cli.main import main

main()
"""
REQUIRED = {
    "workload", "strategy", "label", "models", "devices", "status", "parity", "tokens_per_s", "tokens_per_s_ci_low",
    "tokens_per_s_ci_high", "speedup", "scaling_efficiency", "peak_memory_bytes", "step_time_s",
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO)
    return path


def test_run_prints_the_table_to_stdout_and_the_rest_to_stderr(parbench: CommandLine, tiny: Path) -> None:
    ended = parbench("run", tiny, "--set", "measure.rounds=3", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert "lstm: strong scaling, global batch 8 × 4 tokens" in ended.stdout
    assert "reference" in ended.stdout
    assert "trials to launch" in ended.stderr
    assert "trials to launch" not in ended.stdout
    assert "Verdict on lstm, strong scaling\n- " in ended.stdout
    last, how = ended.stderr.splitlines()[-2:]
    assert last == "Results are in out"
    page = re.fullmatch(r"Its page with charts: parbench report out, which writes (report/\S+/index.html)", how)
    assert page
    assert parbench("report", "out").stdout.strip() == page[1]

    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    assert len(rows) == 2
    assert all(row.keys() >= REQUIRED for row in rows)
    assert [row["parity"] for row in rows] == ["reference", "ok"]
    assert all(row["rounds"] == 3 and row["tokens_per_s"] > 0 and row["peak_memory_bytes"] > 0 for row in rows)
    table = parbench("table", "out", "--format", "csv").stdout
    assert [row["strategy"] for row in csv.DictReader(StringIO(table))] == ["single", "task_pool"]
    assert parbench("table", "out", "--format", "markdown").stdout.startswith("| strategy | devices |")


def test_runs_are_kept_below_results_and_found_as_latest(parbench: CommandLine, tiny: Path) -> None:
    assert parbench("run", tiny).returncode == 0
    (folder,) = (parbench.folder / "results").iterdir()
    assert folder.name in parbench("list", "runs").stdout
    assert parbench("table").stdout == parbench("table", folder.name).stdout


def test_two_runs_of_a_scenario_at_once_are_kept_apart(parbench: CommandLine, tiny: Path) -> None:
    both = [parbench.start("run", tiny, "--rounds", "1") for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(parbench("list", "runs").stdout.splitlines()) == 2


def test_a_run_that_cannot_begin_leaves_no_folder(parbench: CommandLine, tiny: Path) -> None:
    ended = parbench("run", tiny, "--set", "workloads.lstm.data={source: text, path: absent.txt}")
    assert ended.returncode == 2
    assert not list((parbench.folder / "results").iterdir())


def test_damaged_runs_do_not_stand_in_the_way_of_good_ones(parbench: CommandLine, tiny: Path) -> None:
    assert parbench("run", tiny, "--rounds", "1").returncode == 0
    (good,) = (parbench.folder / "results").iterdir()
    for name, text in [("foreign", '{"name": "of another program"}'), ("torn", "{"), ("deep", "[" * 100_000)]:
        (parbench.folder / "results" / name).mkdir()
        (parbench.folder / "results" / name / "run.json").write_text(text)
    listed = parbench("list", "runs")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [good.name]
    assert listed.stderr.count("; this run is left out") == 3
    resumed = parbench("run", tiny, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "results/deep/run.json is damaged" in resumed.stderr
    assert len([path for path in (parbench.folder / "results").iterdir() if (path / "trials.jsonl").exists()]) == 1


def test_a_dry_run_and_a_plan_start_nothing(parbench: CommandLine, tiny: Path) -> None:
    dry = parbench("run", tiny, "--dry-run")
    assert dry.returncode == 0
    assert "2 cells to measure" in dry.stdout
    assert dry.stdout == parbench("plan", tiny).stdout
    assert not (parbench.folder / "results").exists()


def test_a_table_is_printed_in_whatever_characters_there_are(parbench: CommandLine, tiny: Path) -> None:
    assert parbench("run", tiny, "--rounds", "1").returncode == 0
    parbench.environment["PYTHONIOENCODING"] = "ascii"
    ended = parbench("table")
    assert ended.returncode == 0, ended.stderr
    assert "1.00?" in ended.stdout


def test_an_output_that_is_not_utf_8_is_written_down_as_it_can_be(parbench: CommandLine, tiny: Path) -> None:
    ended = parbench("run", tiny, "--rounds", "1", "--out", "out\udcff")
    assert ended.returncode == 0, ended.stderr
    (folder,) = parbench.folder.glob("out*")
    assert json.loads((folder / "run.json").read_text())["id"] == "out\N{REPLACEMENT CHARACTER}"


def test_only_chooses_cells(parbench: CommandLine, tiny: Path) -> None:
    assert "1 cells to measure" in parbench("run", tiny, "--dry-run", "--only", "lstm/single/*").stdout
    several = ("run", tiny, "--dry-run", "--only", "lstm/single/*", "--only", "lstm/task_pool/*")
    assert "2 cells to measure" in parbench(*several).stdout
    none = parbench(*several, "--only", "gru/*")
    assert none.returncode == 2
    assert "--only gru/*: no cell's id matches" in none.stderr
    assert "the cells are lstm/single/1, lstm/task_pool/1" in none.stderr


def test_every_mistake_of_a_scenario_is_said_at_once_and_nothing_starts(parbench: CommandLine) -> None:
    (parbench.folder / "bad.yaml").write_text(
        "workloads:\n  lstm:\n    model: {kind: lstm, layers: two}\n    sequence_len: 4\n    global_batch: 8\n"
        "strategies: [single, dpp]\nmeasure: {rounds: 0}\n"
    )
    ended = parbench("run", "bad.yaml")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    for expected in (
        "bad.yaml:3: workloads.lstm.model.layers:",
        "bad.yaml:4: workloads.lstm.sequence_len: unknown key; did you mean 'seq_len'?",
        "bad.yaml:6: strategies.1: there is no strategy 'dpp'; did you mean 'ddp'?",
        "bad.yaml:7: measure.rounds:",
    ):
        assert expected in ended.stderr
    assert not (parbench.folder / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "absent.yaml"], "absent.yaml: cannot be read"),
        (["table"], "there is no run in results yet"),
        (["table", "nowhere"], "there is no run 'nowhere'"),
        (["table", "../../etc"], "there is no run '../../etc'"),
        (["run"], "Missing argument"),
        (["plan", "tiny.yaml", "--set", "measure.round=3"], "--set measure.round: measure.round: unknown key"),
        (["plan", "tiny.yaml", "--set", "devices.counts=[99999]"], "99999 devices, but there are"),
        (["plan", "tiny.yaml", "--set", "devices.kind=cuda"], "there is no CUDA device"),
        (["plan", "tiny.yaml", "--set", "rounds"], "write it as dotted.path=value"),
        (["run", "tiny.yaml", "tiny.yaml", "--out", "x"], "2 of these scenarios would be kept in one folder, 'tiny'"),
        (["plan", "tiny.yaml", "--rendezvous-timeout", "nan"], "'nan' is not a valid integer"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    parbench: CommandLine, tiny: Path, arguments: list[str], sentence: str
) -> None:
    ended = parbench(*arguments)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_failed_write_is_a_sentence(parbench: CommandLine, tiny: Path) -> None:
    (parbench.folder / "file").write_text("in the way")
    ended = parbench("run", tiny, "--out", "file/out")
    assert ended.returncode == 2
    assert "choose another with --out" in ended.stderr


@pytest.mark.parametrize(
    ("what", "expected"), [("strategies", "ddp"), ("workloads", "lstm"), ("scenarios", ""), ("runs", "")]
)
def test_list(parbench: CommandLine, what: str, expected: str) -> None:
    ended = parbench("list", what)
    assert ended.returncode == 0
    assert expected in ended.stdout


def test_schema_is_json(parbench: CommandLine) -> None:
    assert "workloads" in json.loads(parbench("schema").stdout)["properties"]


def test_doctor_says_what_it_looked_at(parbench: CommandLine) -> None:
    ended = parbench("doctor")
    assert ended.returncode == 0
    assert "torch" in ended.stdout


@pytest.mark.parametrize("scenario", sorted((REPOSITORY / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_has_a_plan_and_skips_only_what_it_shows_to_be_impossible(
    parbench: CommandLine, scenario: Path
) -> None:
    counts = ["--set", "devices.counts=[1, 2]", "--set", "devices.oversubscribe=true"]
    ended = parbench("plan", scenario, *([] if scenario.stem.startswith("h100") else counts))
    if scenario.stem.startswith("h100") and ended.returncode == 2:
        pytest.skip("needs a CUDA device")
    assert ended.returncode == 0, ended.stderr
    assert ("skipped" in ended.stdout) == (scenario.stem in ("lstm_full", "inference_scaling", "long_context"))


def without_torch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """parbench where torch is not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments", [("--help",), ("list",), ("list", "workloads"), ("schema",), ("plan", "tiny.yaml")]
)
def test_looking_needs_no_torch(arguments: tuple[str, ...], tiny: Path) -> None:
    ended = without_torch(*arguments, cwd=tiny.parent)
    assert ended.returncode == 0, ended.stderr


def test_tables_need_no_torch(parbench: CommandLine, tiny: Path) -> None:
    assert parbench("run", tiny, "--out", "out").returncode == 0
    assert without_torch("table", "out", cwd=tiny.parent).returncode == 0


def test_help_imports_little() -> None:
    code = (
        "import sys; from parbench.cli.main import cli; "
        "print(*(set(sys.modules) & {'torch', 'pandas', 'pydantic', 'rich'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


STORED_RUNS = sorted(path.parent for path in (REPOSITORY / "results" / "stored").glob("*/run.json"))


@pytest.mark.parametrize("run", STORED_RUNS, ids=lambda path: path.name)
def test_a_piped_table_has_at_most_120_columns_and_ends_in_the_verdict(run: Path) -> None:
    output = CliRunner().invoke(cli, ["table", str(run)]).output
    table, _, verdict = output.partition("Verdict on ")
    reasons = ": skipped: ", ": undecided: "
    lines = [line for line in output.splitlines() if not any(reason in line for reason in reasons)]
    assert max(map(len, lines)) <= 120
    assert "No room for" in table
    assert "--wide shows all" in " ".join(table.split())
    panels = output.count("Verdict on ")
    assert panels <= verdict.count("\n- ") <= 5 * panels
    assert "cell" in verdict or "fast" in verdict


def test_a_wide_table_has_every_column() -> None:
    run = str(REPOSITORY / "results/stored/strategies_full-cpu-2-cores")
    output = CliRunner().invoke(cli, ["table", run, "--wide"]).output
    header = output.splitlines()[1].split()
    assert {"models", "makespan", "collectives", "communicated", "status"} <= set(header)
    assert "No room for" not in output


def test_only_text_has_a_verdict() -> None:
    run = str(REPOSITORY / "results/stored/zero1-cpu-2-cores")
    for form in ("csv", "json", "markdown"):
        assert "Verdict" not in CliRunner().invoke(cli, ["table", run, "--format", form]).output


def test_a_run_that_is_weak_says_so_below_its_table() -> None:
    run = str(REPOSITORY / "results/stored/lstm_full-cpu-2-cores")
    output = " ".join(CliRunner().invoke(cli, ["table", run]).output.split())
    assert "Warning: Only 1 round: intervals are missing" in output
    assert "Warning: Windows of fewer than 10 steps, where one slow step moves the result: 51 of 58 cells." in output
    calm = str(REPOSITORY / "results/stored/lstm_scaling-cpu-2-cores")
    assert "Only" not in CliRunner().invoke(cli, ["table", calm]).output


class TestPlugins:
    """A strategy and a model family of another package, found by their entry points."""

    def test_they_are_listed_and_a_broken_one_is_shown(self, parbench_with_plugins: CommandLine) -> None:
        strategies = parbench_with_plugins("list").stdout
        assert "averaging" in strategies
        assert "absent" in strategies
        assert "could not be imported: ModuleNotFoundError" in strategies
        assert "bag" in parbench_with_plugins("list", "workloads").stdout

    def test_they_run_and_pass_the_parity_gate(self, parbench_with_plugins: CommandLine, tiny: Path) -> None:
        changes = ("strategies=[single, averaging]", "devices={counts: [2], kind: cpu, oversubscribe: true}")
        sets = [word for change in (*changes, "workloads.lstm.model={kind: bag}") for word in ("--set", change)]
        ended = parbench_with_plugins("run", tiny, "--out", "out", *sets)
        assert ended.returncode == 0, ended.stderr
        rows = json.loads(parbench_with_plugins("table", "out", "--format", "json").stdout)
        assert [(row["strategy"], row["parity"]) for row in rows] == [("single", "reference"), ("averaging", "ok")]


def test_the_worker_runs_by_hand_from_a_trials_folder(parbench: CommandLine, tiny: Path) -> None:
    parbench("run", tiny, "--out", "out")
    folder = next((parbench.folder / "out" / "trials").glob("r000-*"))
    (folder / "rank0.json").unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    ended = subprocess.run(
        [*torchrun, "-m", "parbench.measure.worker", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads((folder / "rank0.json").read_text())["stage"] == "done"


class TestReport:
    """`parbench report`: what is rendered, where to, and what is said of what cannot be."""

    STORED = REPOSITORY / "results" / "stored" / "lstm_scaling-cpu-2-cores"

    @pytest.fixture
    def stored(self, parbench: CommandLine) -> Path:
        """The stored run as the only one below results/."""
        folder = parbench.folder / "results" / "mine"
        shutil.copytree(self.STORED, folder)
        return folder

    def test_the_latest_run_is_rendered_below_report(self, parbench: CommandLine, stored: Path) -> None:
        ended = parbench("report")
        assert ended.returncode == 0, ended.stderr
        page = parbench.folder / ended.stdout.strip()
        identity = json.loads((stored / "run.json").read_text())["id"]
        assert page == parbench.folder / "report" / re.sub("[^a-z0-9]+", "-", identity.lower()) / "index.html"
        assert "fastest" in page.read_text()
        assert [path.name for path in page.parent.iterdir()] == ["index.html"]

    def test_formats_and_several_runs(self, parbench: CommandLine, stored: Path) -> None:
        ended = parbench("report", "mine", self.STORED, "--out", "out", "--format", "html,png, svg")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip() == "out/index.html"
        names = {path.suffix for path in (parbench.folder / "out" / "charts").iterdir()}
        assert names == {".png", ".svg"}

    def test_it_needs_no_torch(self, parbench: CommandLine, stored: Path) -> None:
        ended = without_torch("report", "--format", "html,png", cwd=parbench.folder)
        assert ended.returncode == 0, ended.stderr

    def test_a_torn_line_is_reported_and_the_rest_is_used(self, parbench: CommandLine, stored: Path) -> None:
        torn = len((stored / "trials.jsonl").read_text().splitlines()) + 1
        with (stored / "trials.jsonl").open("a") as file:
            file.write('{"schema_version": 1, "purpose"')
        ended = parbench("report")
        assert ended.returncode == 0
        assert f"trials.jsonl, line {torn} is left out" in ended.stderr
        assert f"line {torn} is left out" in (parbench.folder / ended.stdout.strip()).read_text()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["nowhere"], "there is no run 'nowhere'"),
            (["mine", "nowhere"], "there is no run 'nowhere'"),
            (["--format", "pdf"], "there is no format 'pdf'; choose from html, png, svg"),
            (["--format", "html,"], "there is no format ''"),
            (["--out", "file/out"], "choose another with --out"),
        ],
    )
    def test_bad_usage_is_a_sentence(
        self, parbench: CommandLine, stored: Path, arguments: list[str], sentence: str
    ) -> None:
        (parbench.folder / "file").write_text("in the way")
        ended = parbench("report", *arguments)
        assert ended.returncode == 2
        assert sentence in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""

    def test_without_a_run_it_says_how_to_start_one(self, parbench: CommandLine) -> None:
        ended = parbench("report")
        assert ended.returncode == 2
        assert "there is no run in results yet; start one with: parbench run SCENARIO" in ended.stderr

    def test_a_run_of_a_newer_version_is_refused(self, parbench: CommandLine, stored: Path) -> None:
        record = stored / "run.json"
        record.write_text(record.read_text().replace('"schema_version": 1', '"schema_version": 99'))
        ended = parbench("report")
        assert ended.returncode == 2
        assert "schema version 99" in ended.stderr
