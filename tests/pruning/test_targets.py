import itertools
import json

import pytest
import torch

import skimba
from skimba.pruning import PRESETS, calibration
from skimba.pruning.calibration import calibrate, stage_sets
from tests.conftest import tiny_vim


def exact(model):
    return skimba.count_flops(model, convention="exact").total


@pytest.mark.parametrize("preset", PRESETS)
def test_a_target_of_flops_is_met_and_hardly_undercut(images, preset):
    model = tiny_vim().eval()
    pruned = skimba.prune(model, preset, target_flops=0.9)
    share = exact(pruned) / exact(model)
    assert 0.83 < share <= 0.9, "24 x 2 tokens are coarse steps"
    shares = list(pruned.reducer.keep.values())
    assert len(set(shares)) == 1
    assert pruned(images).shape == (3, 5)


def test_stages_may_be_named_or_given(model):
    named = skimba.prune(model, "hold", target_flops=0.9, stages="every")
    assert list(named.reducer.keep) == [1, 2, 3]
    assert list(skimba.prune(model, "hold", target_flops=0.9, stages=(1, 3)).reducer.keep) == [1, 3]


def test_settings_travel_through_json(model, images):
    pruned = skimba.prune(model, "top", target_flops=0.9, importance="random", seed=3)
    again = skimba.prune(model, **json.loads(json.dumps(pruned.reducer.settings())))
    assert again.reducer == pruned.reducer
    with torch.no_grad():
        assert torch.equal(again(images), pruned(images))


def test_own_functions_cannot_be_written_down(model):
    pruned = skimba.prune(model, "top", importance=lambda tokens, count, seed: tokens.x.sum(-1))
    with pytest.raises(ValueError, match="got a function as importance"):
        pruned.reducer.settings()


def test_calibration_takes_the_stages_that_change_the_answers_least(model, images):
    pruned = skimba.prune(model, "hold", target_flops=0.9, images=images)
    assert exact(pruned) / exact(model) <= 0.9

    def divergence(candidate):
        with torch.no_grad():
            wanted, got = model(images).log_softmax(-1), candidate(images).log_softmax(-1)
        return torch.nn.functional.kl_div(got, wanted, reduction="batchmean", log_target=True).item()

    best = divergence(pruned)
    for stages in stage_sets(4):
        try:
            other = skimba.prune(model, "hold", target_flops=0.9, stages=stages)
        except ValueError:
            continue
        assert divergence(other) >= best - 1e-7


def test_calibration_leaves_the_models_mode_alone(model, images):
    model.train()
    skimba.prune(model, "hold", target_flops=0.9, images=images)
    assert model.training


def test_calibration_says_when_no_schedule_fits(model, images):
    reducer = skimba.prune(model, "hold", keep={1: 0.5}).reducer
    with pytest.raises(ValueError, match=r"no schedule of this method comes down to 0\.05"):
        calibrate(model, lambda keep: reducer, 0.05, 0.5, images)


def test_stage_sets_lie_within_the_model():
    for depth in (1, 2, 8, 24, 36):
        sets = stage_sets(depth)
        assert len(sets) == len(set(sets))
        assert all(stages[0] >= 1 and stages[-1] <= depth for stages in sets)
    assert (1, 2, 3, 4) in stage_sets(8)
    assert (3, 9, 15, 21) in stage_sets(24)


def test_the_search_for_a_speed_up_ends_where_it_is_measured(monkeypatch):
    """With a machine whose time is FLOPs and a fixed part; real timing is in the slow tests."""
    model = tiny_vim().eval()
    monkeypatch.setattr(
        calibration, "measured_speedup", lambda dense, pruned, images: 1.1 / (exact(pruned) / exact(dense) + 0.1)
    )
    pruned = skimba.prune(model, "top", target_speedup=1.15, stages=(1, 2, 3))
    assert 1.1 / (exact(pruned) / exact(model) + 0.1) == pytest.approx(1.15, rel=0.05)
    monkeypatch.setattr(calibration, "measured_speedup", lambda dense, pruned, images: 1.0)
    with pytest.raises(ValueError, match=r"speed-up 1\.5 is out of reach: the least .*, \{1: 0\.05.*\}, makes 1\.00"):
        skimba.prune(model, "top", target_speedup=1.5)
    erratic = itertools.cycle([1.0, 1.3])
    monkeypatch.setattr(calibration, "measured_speedup", lambda dense, pruned, images: next(erratic))
    with pytest.raises(ValueError, match=r"speed-up 1\.15 is out of reach: 1\.30 was measured last"):
        skimba.prune(model, "top", target_speedup=1.15)


def test_a_lucky_measurement_does_not_end_the_search(monkeypatch):
    measured = iter([1.15, 1.45, 1.15, 1.15])
    monkeypatch.setattr(calibration, "measured_speedup", lambda dense, pruned, images: next(measured))
    asked = []
    keep = calibration.keep_for_speedup(
        tiny_vim().eval(), lambda share: asked.append(share) or {1: share}, {1: 0.05}, lambda keep: None, 1.15, None
    )
    assert asked == [pytest.approx(1 / 1.15), pytest.approx(1.3 / 1.15**2)]
    assert keep == {1: asked[1]}
    assert next(measured, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_a_target_of_speed_is_met_on_this_machine(name):
    model = skimba.create_model(name, pretrained=True).eval()
    pruned = skimba.prune(model, target_speedup=1.5, batch_size=50)
    reached = calibration.measured_speedup(model, pruned, torch.zeros(50, 1, 28, 28))
    assert reached == pytest.approx(1.5, rel=0.05)
