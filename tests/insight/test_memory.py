"""The clocks of scans, receptive fields, and what pruning changes."""

import pytest
import torch
import torch.nn.functional as F

import skimba
from skimba.data import embedded_test_images
from skimba.insight import (
    area,
    channel_attention,
    hidden_attention,
    pace,
    position_of_patch,
    pruning_changes,
    receptive_field,
    relevance,
    scan_times,
)
from skimba.insight.watching import watch_block
from skimba.models import VideoMambaClips
from tests.conftest import randomise, tiny_plain_mamba, tiny_vim

SCHEDULE = {1: 0.5}


def by_alignment(model):
    """Dropped by score and made up for in three ways."""
    methods = {name: skimba.Method(skimba.Drop("clip"), align=name) for name in ("none", "decay")}
    methods["hold"] = skimba.Method(skimba.Merge("clip"), align="hold")
    return {name: skimba.prune(model, method, SCHEDULE) for name, method in methods.items()}


def test_a_dense_scan_takes_its_own_steps(model, images):
    times, run = scan_times(model, images, 2), watch_block(model, images, 2)
    for number, call in enumerate(run.scans):
        delta = F.softplus(call.scan.delta + call.scan.delta_bias).detach()
        delta = delta.flip(1) if call.scan.reverse else delta
        torch.testing.assert_close(times.step[:, number], delta)
        torch.testing.assert_close(times.passed[:, number, 1:], delta[:, 1:])
        assert not times.passed[:, number, 0].any()
        rate = -call.scan.A.exp()
        lengths = -1 / (delta[:, 1:].mean(1)[..., None] * rate)
        torch.testing.assert_close(times.decay_lengths[:, number], lengths.detach())
    assert torch.equal(times.place, torch.arange(times.place.shape[2]).expand_as(times.place))


def test_places_count_along_the_walk_and_positions_name_the_tokens(images):
    model = skimba.prune(randomise(tiny_vim()), "top", SCHEDULE)
    times, run = scan_times(model, images, 3), watch_block(model, images, 3)
    position = run.tokens.position
    assert times.walks == ("rows", "rows_back")
    assert torch.equal(times.position[:, 0], position)
    assert torch.equal(times.place[:, 0], position)
    assert torch.equal(times.position[:, 1], position.flip(1))
    assert torch.equal(times.place[:, 1], 48 - position.flip(1))


def test_decay_lets_the_time_of_gaps_pass(images):
    """``passed`` is the own step and, for each missing position, the step before once more."""
    model = skimba.prune(randomise(tiny_plain_mamba()), "top", SCHEDULE)
    times = scan_times(model, images, 3)
    gap = times.place.diff(dim=2)[..., None] - 1
    assert gap.max() > 0
    torch.testing.assert_close(times.passed[:, :, 1:], times.step[:, :, 1:] + gap * times.step[:, :, :-1])


def test_what_is_left_decays_from_one(images):
    times = scan_times(randomise(tiny_vim()), images, 2)
    left = times.remaining(5)
    assert not left[:, :, :5].any()
    torch.testing.assert_close(left[:, :, 5], torch.ones(3, 2))
    age = times.passed[0, 1, 6:9].sum(0)
    torch.testing.assert_close(left[0, 1, 8], torch.exp(age[:, None] * times.rate[1]).mean())
    with pytest.raises(ValueError, match="start must be 0 … 48, got 49"):
        times.remaining(49)


@pytest.mark.parametrize("micro", ["vim_micro", "plain_mamba_micro"])
def test_time_is_lost_without_alignment_and_kept_with_it(micro):
    model = skimba.create_model(micro, pretrained=True).eval()
    images = embedded_test_images()[:4].normalised()
    pruned = by_alignment(model)
    found = pace(scan_times(model, images, 4), {name: scan_times(m, images, 4) for name, m in pruned.items()})
    assert found["none"] < 0.7
    assert 0.75 < found["decay"] < 1.25
    assert 0.75 < found["hold"] < 1.35


def test_a_receptive_field_is_a_share_of_the_gradient(model, images):
    field = receptive_field(model, images, block=2)
    assert field.shape == (24, 32)
    assert field.min() >= 0
    torch.testing.assert_close(field.sum(), torch.tensor(1.0))
    assert 0 < area(field, 0.5) < area(field, 0.8) < 1
    pixels = images.clone().requires_grad_()
    run = watch_block(model, pixels, 2)
    extras = [p for p in run.tokens.layout.extras if p <= 28]
    middle = 3 * 8 + 4 + len([p for p in extras if p <= 3 * 8 + 4 + len(extras)])
    (grad,) = torch.autograd.grad(run.left.stream[:, middle].sum(), pixels)
    torch.testing.assert_close(field, grad.abs().sum((0, 1)) / grad.abs().sum())


def test_a_position_without_a_token_has_no_receptive_field(images):
    model = skimba.prune(randomise(tiny_plain_mamba()), "top", SCHEDULE)
    gone = set(range(48)) - set(watch_block(model, images[:1], 2).tokens.position[0].tolist())
    with pytest.raises(ValueError, match="no token stands for position"):
        receptive_field(model, images[:1], position=min(gone))
    with pytest.raises(ValueError, match="positions must be 0 … 47, got 48"):
        receptive_field(model, images, position=48)


def test_changes_are_zero_before_anything_is_removed(model, images):
    pruned = by_alignment(model)
    found = pruning_changes(model, pruned, images)
    assert found.titles == ("none", "decay", "hold")
    assert not found.scan[:, 0].any()
    assert not found.stream[:, 0].any()
    assert found.removes.tolist() == [[True, False, False, False]] * 3
    assert (found.scan[:, 1:] > 0).all()
    with torch.no_grad():
        dense, logits = model(images), pruned["decay"](images)
    torch.testing.assert_close(found.logits[1, -1], (logits - dense).norm() / dense.norm(), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="no pruned model"):
        pruning_changes(model, {}, images)


@torch.no_grad()
def test_clips_are_looked_at_as_pictures_are():
    model = randomise(VideoMambaClips(img_size=12, patch_size=4, frames=2, embed_dim=16, depth=3, num_classes=5))
    clips = torch.randn(1, 3, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    pruned = skimba.prune(model, "hold", {1: 0.5})
    found = channel_attention(pruned, clips, 2, [0, 9], ("skip", "gate", "convolution"))
    rows = (found.weight @ found.read[..., None])[..., 0] + found.rest
    assert float((rows - found.output).abs().max()) <= 1e-5 * float(found.output.abs().max())
    patch = position_of_patch(found.layout, (1, 2, 0))
    attention = hidden_attention(pruned, clips, 2, positions=[patch])
    assert attention.maps.shape == (1, 2, 1, 2, 3, 3)
    assert torch.equal(attention.maps[..., 1, 2, 0], attention.weight[..., patch])
    assert relevance(pruned, clips).map.shape == (1, 2, 3, 3)
    assert receptive_field(pruned, clips).shape == (2, 12, 12)
