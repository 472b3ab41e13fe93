"""What disturbed a trial, by hand arithmetic."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from parbench.measure.probes import surroundings
from parbench.measure.probes.surroundings import Surroundings
from parbench.records.trial import GpuSurroundings, SurroundingsRecord
from parbench.results.disturbance import warnings_of
from parbench.results.stalls import Stall, longest_stall
from parbench.system.gpu_users import GpuUsers
from tests.support.records import job, rank


def seen(number: int = 0, cores: tuple[int, ...] = (0,), host: str = "here", **changes: object):
    around = {"window_s": 2.0, "busy_s": 2.0, "own_s": 2.0, **changes}
    return rank(number, host=host, cores=cores, surroundings=SurroundingsRecord(**around))


def test_a_rank_alone_on_its_cores_is_undisturbed() -> None:
    assert warnings_of([seen(0), seen(1, (1,))]) == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # Of 2 s on one core others used 0.5 s.
        ({"own_s": 1.5}, "other processes used 25% of the cores of rank 0"),
        ({"stolen_s": 0.3}, "the hypervisor gave 15% of the cores of rank 0 to others"),
        ({"throttled": 3}, "the cores of rank 0 were slowed down for heat 3 times"),
    ],
)
def test_what_others_took_is_told(changes: dict[str, float], told: str) -> None:
    assert warnings_of([seen(**changes), seen(1, (1,))]) == (told,)


def test_little_is_not_worth_a_warning() -> None:
    assert warnings_of([seen(own_s=1.85, stolen_s=0.1)]) == ()


def test_two_cores_are_twice_as_much() -> None:
    assert warnings_of([seen(cores=(0, 1), busy_s=3.0, own_s=2.0)]) == (
        "other processes used 25% of the cores of rank 0",
    )


def test_of_many_cores_one_is_worth_a_warning() -> None:
    """A GPU's rank has all cores of its node, and needs the one that it runs on."""
    many = tuple(range(32))
    # In 2 s others used 2.4 CPU seconds: 1.2 of the 32 cores.
    assert warnings_of([seen(cores=many, busy_s=4.4)]) == ("other processes used 4% of the cores of rank 0",)
    assert warnings_of([seen(cores=many, busy_s=3.8)]) == ()


def test_ranks_that_share_a_core_by_design_are_no_disturbance_and_other_hosts_are_apart() -> None:
    assert warnings_of([seen(0, own_s=1.0), seen(1, own_s=1.0)]) == ()
    assert len(warnings_of([seen(0, own_s=1.0), seen(1, own_s=1.0, host="there")])) == 2


def test_ranks_that_are_not_pinned_share_the_cores_of_their_host() -> None:
    def free(number: int, host: str = "here", lane: int = 0, **changes: object):
        return seen(number, (), host, **changes).model_copy(update={"lane": lane})

    # In 2 s ranks used 3 + 2 CPU seconds of 8: others kept 1.5 cores busy.
    assert warnings_of([free(0, busy_s=8.0, own_s=3.0), free(1, busy_s=8.0, own_s=2.0)]) == (
        "other processes kept 1.5 cores busy beside rank 0",
    )
    assert warnings_of([free(0, busy_s=5.0, own_s=3.0)]) == ()  # one core of many
    assert warnings_of([free(0, busy_s=8.0, own_s=3.0), free(1, lane=1)]) == ()
    assert warnings_of([free(0, "a"), free(1, "b", busy_s=8.0)]) == (
        "other processes kept 3.0 cores busy beside rank 1",
    )


def test_a_rank_that_is_not_pinned_sees_what_runs_on_any_core() -> None:
    around = Surroundings((), ())
    around.start_window()
    burn = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    around.end_window()
    found = around.read()
    assert found.busy_s - found.own_s > 0.4


def test_a_gpus_counters_are_summed_over_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([{"heat": 1.0}, {"heat": 1.5}, {"heat": 4.0}, {"heat": 4.25}])
    monkeypatch.setattr(surroundings, "nvml", lambda: nullcontext(SimpleNamespace()))
    monkeypatch.setattr(surroundings, "users_of", lambda *_: GpuUsers(compute=(1, 2), servers=(3,)))
    monkeypatch.setattr(surroundings, "is_client", lambda device: device == 0)
    monkeypatch.setattr(surroundings, "gpu_of_torch", lambda _, uuid: (f"MIG-{uuid}", "handle"))
    monkeypatch.setattr(surroundings, "read_throttled_seconds", lambda *_: next(counts))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=7))
    around = Surroundings((), (torch.device("cuda", 0),))
    for _ in range(2):
        around.start_window()
        around.end_window()
    (gpu,) = around.read().gpus
    assert gpu == GpuSurroundings(uuid="MIG-7", processes=2, mps=True, throttled_s={"heat": 0.75})


def gpu(number: int, processes: int | None, *, mps: bool | None = None, **throttled_s: float):
    gpus = (GpuSurroundings(uuid="GPU-1", processes=processes, mps=mps, throttled_s=throttled_s),)
    return rank(number, surroundings=SurroundingsRecord(window_s=1.0, gpus=gpus))


def test_guests_of_a_gpu_are_those_that_are_not_ranks_of_this_trial() -> None:
    assert warnings_of([gpu(0, 2), gpu(1, 2)]) == ()
    assert warnings_of([gpu(0, 4), gpu(1, 4)]) == ("2 other processes computed on GPU-1 of rank 0",)
    assert warnings_of([gpu(0, None)]) == ()


def test_ranks_go_through_mps_where_they_were_told_to_and_else_that_is_said() -> None:
    served = [gpu(0, 2, mps=True), gpu(1, 2, mps=True)]
    assert warnings_of(served, mps=True) == ()
    assert warnings_of(served) == ("MPS, for which this cell does not ask, served rank 0 on GPU-1",)
    assert warnings_of([gpu(0, 2, mps=False), gpu(1, 2)]) == ()
    assert warnings_of([gpu(0, 3, mps=True), gpu(1, 3, mps=True)], mps=True) == (
        "1 other process computed on GPU-1 of rank 0",
    )


def test_a_clock_that_was_held_down_is_told() -> None:
    assert warnings_of([gpu(0, 1, heat=0.25)]) == ("heat held the clock of GPU-1 of rank 0 down for 25% of the window",)
    assert warnings_of([gpu(0, 1, heat=0.001)]) == ()


def test_a_gpu_at_its_power_limit_is_as_fast_as_it_is() -> None:
    assert warnings_of([gpu(0, 1, **{"power limit": 1.0})]) == ()


SHORT = (0.001, 0.0013, 0.0012, 0.0011, 0.0014)


def test_a_step_in_which_a_rank_stood_still_is_told_by_rank() -> None:
    still = job(step_times_s=(*SHORT * 100, 4.0, *SHORT * 100))
    assert warnings_of([rank(0), rank(1, jobs=(job(), still))]) == (
        "a step of rank 1 took 4.0 s, where others take 1.2 ms",
    )
    assert warnings_of([rank(0, jobs=(job(step_times_s=(2.0, 9.0, 2.0)),))]) == (
        "a step of rank 0 took 9.0 s, where others take 2.0 s",
    )


@pytest.mark.parametrize(
    ("times", "stall"),
    [
        # Half a second among steps of 1.2 ms, in a window of 2.3 s: more than a tenth of it.
        ((*SHORT * 300, 0.5), Stall(0.5, 0.0012)),
        # Of a window of 6.5 s, less.
        ((*SHORT * 1000, 0.5), None),
        # A hiccup of a scheduler or a quota is nine tenths of a short window, and no stall.
        ((*SHORT, 0.2), None),
        ((*SHORT[:4], 0.26), Stall(0.26, 0.0012)),
        # Long steps of which one is two and a half times as long; and more than three times.
        ((1.0, 1.1, 1.0, 2.5, 0.9), None),
        ((1.0, 1.1, 1.0, 3.1, 0.9), Stall(3.1, 1.0)),
        # Steps that differ that much anyway: of these the median is 3.5, and the median distance from it 1.5, so that
        # 3.5 of their deviations, which are 1.5 / 0.6745 s, are 7.8 s.
        ((1.0, 2.0, 3.0, 4.0, 5.0, 11.2), None),
        ((1.0, 2.0, 3.0, 4.0, 5.0, 11.4), Stall(11.4, 3.5)),
        # Of two steps neither is the usual one.
        ((0.01, 4.0), None),
        ((), None),
    ],
)
def test_what_a_stall_is(times: tuple[float, ...], stall: Stall | None) -> None:
    assert longest_stall(times) == (stall and pytest.approx(stall))


def test_steps_that_are_long_by_design_are_no_stalls() -> None:
    period = (0.01,) * 7
    averaging = (*period, 2.0, *period, 2.1, *period, 1.9)
    assert longest_stall(averaging) == Stall(2.1, 0.01)
    assert longest_stall(averaging, cycle=8) is None
    assert warnings_of([rank(0, jobs=(job(step_times_s=averaging, cycle=8),))]) == ()
    # Wherever in the cycle the window began, and with one that is longer than its like.
    assert longest_stall(averaging[3:] + averaging[:3], cycle=8) is None
    assert longest_stall((*averaging, *period, 9.0), cycle=8) == pytest.approx(Stall(9.0, 2.05))
    assert longest_stall((*averaging[:-2], 4.0, 1.9), cycle=8) == Stall(4.0, 0.01)
    # In one cycle alone nothing can be told from what it was meant to be.
    assert longest_stall((*period, 2.0), cycle=8) is None
