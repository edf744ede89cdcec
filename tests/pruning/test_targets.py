import itertools
import math
from dataclasses import replace

import pytest
import torch

import skimba
from skimba import METHODS, Drop, Flops, Method, Milliseconds, Speedup
from skimba.pruning import Measured, OutOfReachError, Share, calibration, targets
from skimba.pruning.calibration import (
    TOLERANCE,
    Goal,
    Search,
    calibrate,
    schedule_for_speed,
    share_for_flops,
    stage_sets,
)
from tests.conftest import tiny_vim


def exact(model):
    return skimba.count_flops(model, convention="exact").total


@pytest.mark.parametrize("method", METHODS)
def test_a_target_of_flops_is_met_and_hardly_undercut(images, method):
    model = tiny_vim().eval()
    pruned = skimba.prune(model, method, Flops(0.9))
    share = exact(pruned) / exact(model)
    assert 0.83 < share <= 0.9, "24 x 2 tokens are coarse steps"
    assert pruned.reducer.measured == Measured(flops_share=share)
    shares = list(pruned.reducer.schedule.values())
    assert len(set(shares)) == 1
    assert pruned(images).shape == (3, 5)


def test_stages_may_be_named_or_given(model):
    named = skimba.prune(model, "hold", Flops(0.9, stages="every"))
    assert list(named.reducer.schedule) == [1, 2, 3]
    assert list(skimba.prune(model, "hold", Flops(0.9, stages=[3, 1])).reducer.schedule) == [1, 3]
    own = replace(METHODS["hold"], stages=(1, 3))
    assert list(skimba.prune(model, own, Flops(0.9)).reducer.schedule) == [1, 3]


def test_calibration_takes_the_stages_that_change_the_answers_least(model, images):
    pruned = skimba.prune(model, "hold", Flops(0.9, images=images))
    assert exact(pruned) / exact(model) <= 0.9

    def divergence(candidate):
        with torch.no_grad():
            wanted, got = model(images).log_softmax(-1), candidate(images).log_softmax(-1)
        return torch.nn.functional.kl_div(got, wanted, reduction="batchmean", log_target=True).item()

    best = divergence(pruned)
    for stages in stage_sets(4):
        try:
            other = skimba.prune(model, "hold", Flops(0.9, stages=stages))
        except OutOfReachError:
            continue
        assert divergence(other) >= best - 1e-7


def test_calibration_leaves_the_models_mode_alone(model, images):
    model.train()
    skimba.prune(model, "hold", Flops(0.9, images=images))
    assert model.training


def test_calibration_says_when_no_schedule_fits(model, images):
    reducer = skimba.prune(model, "hold", {1: 0.5}).reducer
    with pytest.raises(ValueError, match=r"no schedule of this method comes down to 0\.05"):
        calibrate(Search(model, lambda schedule: reducer, 0.5), 0.05, images)


def test_stage_sets_lie_within_the_model():
    for depth in (1, 2, 8, 24, 36):
        sets = stage_sets(depth)
        assert len(sets) == len(set(sets))
        assert all(stages[0] >= 1 and stages[-1] <= depth for stages in sets)
    assert (1, 2, 3, 4) in stage_sets(8)
    assert (3, 9, 15, 21) in stage_sets(24)


FLOPS = {  # as a model's may grow with the share kept: in steps, with a jump at 1, along a curve
    "steps": lambda share: 0.1 + 0.8 * math.ceil(48 * share) / 48,
    "curve": lambda share: 0.1 + 0.9 * share**4,
    "steep": lambda share: 0.1 + 0.9 * share**40,
    "flat": lambda share: 0.3 if share < 0.7 else 0.95,
}


@pytest.mark.parametrize("least", [0.05, 0.5])
@pytest.mark.parametrize("kind", FLOPS)
def test_the_share_found_is_that_of_halving(kind, least):
    asked = []

    def flops(share):
        asked.append(share)
        return FLOPS[kind](share)

    for target in (0.55, 0.72, 0.8999, 0.94):
        asked.clear()
        sizes = {"steps": lambda share: math.ceil(48 * share)}
        found = share_for_flops(flops, target, least, sizes.get(kind, lambda share: share))
        assert len(asked) <= (6 if kind == "steps" else 20)
        low, high = least, 1.0
        while high - low > TOLERANCE:
            middle = (low + high) / 2
            low, high = (middle, high) if FLOPS[kind](middle) <= target else (low, middle)
        assert found == pytest.approx(low, abs=1e-9)
        assert FLOPS[kind](found) <= target


def test_a_share_out_of_reach_is_told():
    with pytest.raises(OutOfReachError, match=r"comes down to 0\.550 of the FLOPs, got target 0\.5"):
        share_for_flops(lambda share: 0.1 + 0.9 * share, 0.5, 0.5, lambda share: share)


def simulated(monkeypatch, measure):
    """A machine of which only the times are made up."""
    for module in (calibration, targets):
        monkeypatch.setattr(module, "measure", measure)


def test_the_search_for_a_speed_up_ends_where_it_is_measured(monkeypatch):
    """With a machine whose time is FLOPs and a fixed part; real timing is in the slow tests."""
    model = tiny_vim().eval()

    def machine(dense, pruned, images):
        share = exact(pruned) / exact(dense)
        return Measured(None, 1.1 / (share + 0.1), 10 * (share + 0.1), len(images))

    simulated(monkeypatch, machine)
    pruned = skimba.prune(model, "top", Speedup(1.15, stages=(1, 2, 3)))
    share = exact(pruned) / exact(model)
    assert 1.1 / (share + 0.1) == pytest.approx(1.15, rel=0.05)
    assert pruned.reducer.measured == Measured(share, 1.1 / (share + 0.1), 10 * (share + 0.1), 8)
    pruned = skimba.prune(model, "top", Milliseconds(9.5, batch_size=2, stages=(1, 2, 3)))
    assert pruned.reducer.measured.time_ms == pytest.approx(9.5, rel=0.05)
    assert pruned.reducer.measured.batch_size == 2
    with pytest.raises(ValueError, match="the dense model takes 11 ms already, asked for 12 ms"):
        skimba.prune(model, "top", Milliseconds(12))
    with pytest.raises(OutOfReachError, match=r"2 ms is out of reach: the least .* makes .* ms"):
        skimba.prune(model, "top", Milliseconds(2))


def test_a_speed_up_out_of_reach_is_told(monkeypatch):
    model = tiny_vim().eval()
    simulated(monkeypatch, lambda dense, pruned, images: Measured(None, 1.0, 1.0, 8))
    with pytest.raises(ValueError, match=r"speed-up 1\.5 is out of reach: the least .*, \{1: 0\.05.*\}, makes 1\.00"):
        skimba.prune(model, "top", Speedup(1.5))
    erratic = itertools.cycle([1.0, 1.3])
    simulated(monkeypatch, lambda dense, pruned, images: Measured(None, next(erratic), 1.0, 8))
    with pytest.raises(ValueError, match=r"speed-up 1\.15 is out of reach: 1\.30 was measured last"):
        skimba.prune(model, "top", Speedup(1.15))


def test_a_lucky_measurement_does_not_end_the_search(monkeypatch):
    measured = iter([1.15, 1.45, 1.15, 1.15])
    simulated(monkeypatch, lambda dense, pruned, images: Measured(None, next(measured), 1.0, 8))
    asked = []

    class Recorded(Search):
        def at(self, stages, target):
            asked.append(target)
            return {1: Share(target)}

    goal = Goal("speed-up 1.15", 1.15, lambda timed: timed.speedup / 1.15, lambda timed: f"{timed.speedup:.2f}")
    schedule, found = schedule_for_speed(Recorded(tiny_vim().eval(), lambda schedule: None, 0.05), (1,), goal, None)
    assert asked == [pytest.approx(1 / 1.15), pytest.approx(1.3 / 1.15**2)]
    assert schedule == {1: Share(asked[1])}
    assert found.speedup == pytest.approx(1.15)
    assert next(measured, None) is None


def reads_a_value(tokens, count, seed):
    return -tokens.position.float() * (1 + abs(tokens.x.mean().item()))


def makes_tensors_on_the_cpu(tokens, count, seed):
    return torch.arange(tokens.x.shape[1], device="cpu").expand(tokens.x.shape[0], -1) + tokens.x.float().mean(-1)


@pytest.mark.parametrize("score", [reads_a_value, makes_tensors_on_the_cpu])
def test_functions_of_ones_own_may_read_values_under_a_target(model, images, score):
    pruned = skimba.prune(model, Method(Drop(score)), Flops(0.9))
    reached = skimba.count_flops(pruned, convention="exact", images=images).total / exact(model)
    assert reached == pytest.approx(pruned.reducer.measured.flops_share)
    assert 0.8 < reached <= 0.9
    with pytest.raises(ValueError, match=r"tensors without data .* Count on real images, images="):
        skimba.count_flops(pruned)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_a_target_of_speed_is_met_on_this_machine(name):
    model = skimba.create_model(name, pretrained=True).eval()
    pruned = skimba.prune(model, schedule=Speedup(1.5, batch_size=50))
    reached = calibration.measure(model, pruned, torch.zeros(50, 1, 28, 28)).speedup
    assert reached == pytest.approx(1.5, rel=0.05)
