import math

import pytest

from parbench.records.energy import EnergyRecord, PackageReadings, counted
from parbench.results.tables import cells_table, columns
from tests.support.records import LOSSES, cell, job, rank, reference, run, trial

SINGLE = cell()
DDP = cell("ddp", 2)


def rows(cells, trials, *, rounds=1, reference_losses=True):
    """The table's rows by label and devices; reference losses are there unless told otherwise."""
    references = [reference(each) for each in cells] if reference_losses else []
    table = cells_table(run(cells, [*references, *trials], rounds=rounds))
    assert tuple(table.columns) == columns()
    assert len(table) == len(cells)
    return {(row["label"], row["devices"]): row for row in table.to_dict(orient="records")}


def missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def has_no_speedup(row) -> bool:
    return all(missing(row[name]) for name in ("speedup", "speedup_ci_low", "speedup_ci_high", "scaling_efficiency"))


def off_by(nats: float):
    """Ranks whose losses lie this far from the reference."""
    return (rank(jobs=(job(losses=tuple(loss + nats for loss in LOSSES)),)),)


def test_a_good_row_holds_every_figure():
    table = rows(
        [SINGLE, DDP], [trial(SINGLE), trial(DDP, ranks=(rank(jobs=(job(window_s=1.0, steady=False),)),), wall_s=9.0)]
    )
    single, ddp = table["single", 1], table["ddp", 2]
    assert single["tokens_per_s"] == pytest.approx(2560)
    assert ddp["tokens_per_s"] == pytest.approx(5120)
    assert (single["speedup"], ddp["speedup"]) == pytest.approx((1.0, 2.0))
    assert (single["scaling_efficiency"], ddp["scaling_efficiency"]) == pytest.approx((1.0, 1.0))
    assert (single["parity"], ddp["parity"]) == ("reference", "ok")
    assert (single["status"], ddp["status"]) == ("ok", "ok")
    assert (single["steady"], ddp["steady"]) == (True, False)
    assert ddp["step_time_s"] == pytest.approx(0.1)
    assert ddp["validation_perplexity"] == pytest.approx(math.exp(5.0))
    assert ddp["parity_deviation"] == 0.0
    assert ddp["rounds"] == 1
    assert missing(ddp["reason"])
    assert missing(ddp["peak_memory_bytes"])


def test_a_machine_twice_as_slow_in_one_round_leaves_the_speedup_unchanged():
    slowness = [1.0, 2.0, 1.0]
    trials = [
        trial(each, number, window_s=window_s * slow)
        for number, slow in enumerate(slowness)
        for each, window_s in [(SINGLE, 2.0), (DDP, 1.25)]
    ]
    row = rows([SINGLE, DDP], trials, rounds=3)["ddp", 2]
    assert row["speedup"] == pytest.approx(1.6)
    assert (row["speedup_ci_low"], row["speedup_ci_high"]) == pytest.approx((1.6, 1.6))
    assert row["scaling_efficiency"] == pytest.approx(0.8)
    assert row["tokens_per_s_ci_high"] / row["tokens_per_s_ci_low"] > 2


def test_a_speedup_pairs_rounds_by_their_number_and_not_by_their_order():
    trials = [trial(SINGLE, 0, window_s=2.0), trial(SINGLE, 1, window_s=4.0)]
    trials += [trial(DDP, 1, window_s=2.0), trial(DDP, 0, window_s=1.0)]
    row = rows([SINGLE, DDP], trials, rounds=2)["ddp", 2]
    assert (row["speedup"], row["speedup_ci_low"], row["speedup_ci_high"]) == pytest.approx((2.0, 2.0, 2.0))


def test_medians_are_over_rounds():
    trials = [trial(SINGLE, number, window_s=window_s) for number, window_s in enumerate([1.0, 2.0, 9.0])]
    assert rows([SINGLE], trials, rounds=3)["single", 1]["step_time_s"] == pytest.approx(0.2)


def test_a_figure_with_a_tag_has_a_column_for_it():
    energy = EnergyRecord(seconds=2.0, packages=PackageReadings(machine="m", energy_j=counted(1280.0)))
    read = trial(SINGLE, ranks=(rank(energy=energy),))
    silent = trial(DDP, ranks=(rank(energy=EnergyRecord(seconds=2.0, packages=PackageReadings(machine="m"))),))
    table = rows([SINGLE, DDP], [read, silent])
    single, ddp = table["single", 1], table["ddp", 2]
    assert (single["tokens_per_joule"], single["tokens_per_joule_source"]) == (pytest.approx(4.0), "counter")
    assert (single["mean_power_w"], single["mean_power_w_source"]) == (pytest.approx(640.0), "counter")
    assert missing(ddp["tokens_per_joule"])
    assert ddp["tokens_per_joule_source"] == "unavailable"
    assert missing(single["sm_clock_mhz_source"])
    assert missing(rows([SINGLE], [trial(SINGLE)])["single", 1]["tokens_per_joule_source"])


def test_weak_and_strong_scaling_have_references_of_their_own():
    weak_single, weak_ddp = cell(scaling="weak"), cell("ddp", 2, scaling="weak", global_batch=16)
    cells = [SINGLE, DDP, weak_single, weak_ddp]
    trials = [
        trial(SINGLE, window_s=2.0),
        trial(DDP, window_s=1.0),
        trial(weak_single, window_s=4.0),
        trial(weak_ddp, window_s=4.0),
    ]
    table = cells_table(run(cells, [*map(reference, cells), *trials]))
    speedups = dict(zip(zip(table["label"], table["scaling"], strict=True), table["speedup"], strict=True))
    assert speedups["ddp", "strong"] == pytest.approx(2.0)
    assert speedups["ddp", "weak"] == pytest.approx(2.0)
    assert speedups["single", "weak"] == pytest.approx(1.0)


def test_another_workloads_reference_is_none():
    other = cell("ddp", 2, workload="transformer")
    row = rows([SINGLE, other], [trial(SINGLE), trial(other)])["ddp", 2]
    assert row["status"] == "ok"
    assert has_no_speedup(row)


@pytest.mark.parametrize("status", ["failed", "killed", "out_of_memory", "timed_out"])
def test_a_cell_that_failed_in_every_round_says_why(status):
    trials = [trial(DDP, number, status=status, reason="rank 1 fell over") for number in range(2)]
    trials += [trial(SINGLE, number) for number in range(2)]
    row = rows([SINGLE, DDP], trials, rounds=2)["ddp", 2]
    assert (row["status"], row["reason"], row["rounds"]) == (status, "rank 1 fell over", 0)
    assert has_no_speedup(row)
    assert missing(row["tokens_per_s"])
    assert missing(row["parity"])
    assert missing(row["steady"])


def test_a_cell_that_failed_in_one_round_keeps_its_figures_but_has_no_speedup():
    trials = [trial(SINGLE, number) for number in range(3)] + [trial(DDP, 0), trial(DDP, 2)]
    trials.append(trial(DDP, 1, status="failed", reason="rank 1 fell over"))
    row = rows([SINGLE, DDP], trials, rounds=3)["ddp", 2]
    assert (row["status"], row["reason"]) == ("failed", "rank 1 fell over (1 of 3 rounds)")
    assert row["rounds"] == 2
    assert row["tokens_per_s"] == pytest.approx(2560)
    assert has_no_speedup(row)


def test_the_worst_of_several_failures_is_the_status():
    trials = [
        trial(DDP, 0, status="failed", reason="fell over"),
        trial(DDP, 1, status="timed_out", reason="slept"),
        trial(DDP, 2, status="killed", reason="was shot"),
        trial(DDP, 3, status="out_of_memory", reason="was full"),
    ]
    assert rows([DDP], trials, rounds=4)["ddp", 2]["status"] == "out_of_memory"
    assert rows([DDP], trials[:3], rounds=4)["ddp", 2]["reason"] == "was shot (1 of 4 rounds)"
    assert rows([DDP], trials[:2], rounds=4)["ddp", 2]["status"] == "timed_out"


def test_a_failure_without_a_reason_says_so():
    assert rows([DDP], [trial(DDP, status="failed")])["ddp", 2]["reason"] == "no reason was recorded"


def test_a_skipped_cell_is_a_row():
    skipped = cell("ddp", 4, reason="8 sequences do not divide by 3")
    row = rows([SINGLE, skipped], [trial(SINGLE)])["ddp", 4]
    assert (row["status"], row["reason"], row["rounds"]) == ("skipped", "8 sequences do not divide by 3", 0)
    assert has_no_speedup(row)


def test_a_cell_that_an_interruption_left_out_is_a_row():
    row = rows([SINGLE, DDP], [trial(SINGLE)])["ddp", 2]
    assert row["status"] == "skipped"
    assert "interrupted" in row["reason"]


def test_a_cell_with_too_few_rounds_says_how_many():
    row = rows([SINGLE], [trial(SINGLE, 0), trial(SINGLE, 1)], rounds=5)["single", 1]
    assert (row["status"], row["reason"]) == ("ok", "only 2 of 5 rounds were measured")
    assert row["speedup"] == pytest.approx(1.0)


def test_trials_of_another_environment_do_not_count():
    elsewhere = "fedcba9876543210"
    cells = [SINGLE, DDP]
    trials = [trial(SINGLE), trial(DDP), trial(SINGLE, 1, window_s=9.0, environment=elsewhere)]
    trials.append(trial(DDP, 1, status="failed", environment=elsewhere))
    table = rows(cells, [*trials, reference(DDP, ranks=off_by(1.0), environment=elsewhere)])
    for row in table.values():
        assert (row["status"], row["rounds"], row["tokens_per_s"]) == ("ok", 1, pytest.approx(2560))
    assert table["ddp", 2]["parity"] == "ok"


@pytest.mark.parametrize(("nats", "parity"), [(0.9e-5, "ok"), (1.1e-5, "failed"), (-1.1e-5, "failed")])
def test_the_gate_shuts_beyond_the_tolerance_of_the_precision(nats, parity):
    row = rows([SINGLE, DDP], [trial(SINGLE), trial(DDP, ranks=off_by(nats))])["ddp", 2]
    assert row["parity"] == parity
    assert row["parity_deviation"] == pytest.approx(abs(nats), rel=1e-3)
    assert has_no_speedup(row) == (parity == "failed")


def test_other_losses_than_the_references_are_not_comparable():
    row = rows([SINGLE, DDP], [trial(SINGLE), trial(DDP, ranks=off_by(0.25))])["ddp", 2]
    assert (row["status"], row["parity"]) == ("ok", "failed")
    assert row["reason"] == "not comparable: losses differ from the reference by 0.25 nats per token, first in step 1"
    assert row["tokens_per_s"] == pytest.approx(2560)
    assert has_no_speedup(row)


def test_one_round_with_other_losses_shuts_the_gate():
    trials = [trial(each, number) for each in (SINGLE, DDP) for number in range(2)]
    trials[-1] = trial(DDP, 1, ranks=off_by(0.5))
    row = rows([SINGLE, DDP], trials, rounds=2)["ddp", 2]
    assert (row["parity"], row["parity_deviation"]) == ("failed", pytest.approx(0.5))


def test_a_shut_gate_is_told_also_where_rounds_are_missing():
    row = rows([SINGLE, DDP], [trial(SINGLE), trial(DDP, ranks=off_by(0.25))], rounds=5)["ddp", 2]
    assert "only 1 of 5 rounds" in row["reason"]
    assert "not comparable" in row["reason"]


def test_a_trial_without_losses_is_not_comparable():
    row = rows([SINGLE, DDP], [trial(SINGLE), trial(DDP, ranks=(rank(jobs=(job(losses=()),)),))])["ddp", 2]
    assert (row["parity"], row["parity_deviation"]) == ("failed", math.inf)
    assert has_no_speedup(row)


def test_an_inexact_strategy_is_compared_though_its_losses_differ():
    local_sgd = cell("local_sgd", 2, exact=False)
    row = rows([SINGLE, local_sgd], [trial(SINGLE), trial(local_sgd, ranks=off_by(0.25))])["local_sgd", 2]
    assert (row["parity"], row["parity_deviation"]) == ("inexact", pytest.approx(0.25))
    assert row["speedup"] == pytest.approx(1.0)


@pytest.mark.parametrize("failed", [False, True], ids=["absent", "failed"])
def test_without_reference_losses_the_row_says_that_parity_was_not_checked(failed):
    trials = [reference(DDP, status="failed", reason="no memory")] if failed else []
    row = rows([DDP], [*trials, trial(DDP)], reference_losses=False)["ddp", 2]
    assert missing(row["parity"])
    assert missing(row["parity_deviation"])
    assert row["reason"] == "parity was not checked: the reference could not be computed"


@pytest.mark.parametrize("broken", [{"status": "failed"}, {"reason": "no core is left"}], ids=["failed", "skipped"])
def test_without_a_measured_single_device_nothing_has_a_speedup(broken):
    single = cell(**{key: value for key, value in broken.items() if key == "reason"})
    trials = [trial(single, status="failed", reason="fell over")] if "status" in broken else []
    row = rows([single, DDP], [*trials, trial(DDP)])["ddp", 2]
    assert (row["status"], row["parity"]) == ("ok", "ok")
    assert has_no_speedup(row)
    assert row["tokens_per_s"] == pytest.approx(2560)


def test_diverged_training_does_not_break_the_table():
    diverged = (rank(jobs=(job(validation_loss=1e6),)),)
    assert rows([SINGLE], [trial(SINGLE, ranks=diverged)])["single", 1]["validation_perplexity"] == math.inf


def test_every_cell_is_a_row_in_the_planned_order_whatever_happened():
    cells = [
        SINGLE,
        DDP,
        cell("fsdp", 2),
        cell("data_parallel", 2, reason="needs CUDA"),
        cell("task_pool", 2, emulated=True, oversubscribed=True),
    ]
    trials = [trial(SINGLE), trial(DDP, status="timed_out", reason="slept"), trial(cells[4])]
    table = cells_table(run(cells, trials))
    assert list(table["label"]) == ["single", "ddp", "fsdp", "data_parallel", "task_pool"]
    assert list(table["status"]) == ["ok", "timed_out", "skipped", "skipped", "ok"]
    assert list(table["emulated"]) == list(table["oversubscribed"]) == [False, False, False, False, True]


def test_a_run_in_which_all_failed_is_a_table_of_reasons():
    trials = [trial(each, status="killed", reason="was shot") for each in (SINGLE, DDP)]
    table = rows([SINGLE, DDP], trials, reference_losses=False)
    for row in table.values():
        assert (row["status"], row["reason"]) == ("killed", "was shot")
        assert missing(row["tokens_per_s"])
        assert has_no_speedup(row)


def test_a_run_without_cells_is_an_empty_table():
    assert rows([], []) == {}
