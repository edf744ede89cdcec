"""Targets of detectors, segmenters and models without a head: stages chosen by the change of the feature maps."""

import pytest
import torch

import skimba
from skimba.pruning import calibration, targets
from skimba.pruning.calibration import Measured
from skimba.pruning.change import changes
from tests.conftest import tiny_vim

TARGET = 0.96  # the stem is most of a PlainMamba as narrow as this


def pictures(count=2):
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def map_change(dense, pruned, images):
    """As a mean over pictures and maps, in plain words."""
    with torch.no_grad():
        maps = zip(dense.forward_maps(images), pruned.forward_maps(images), strict=True)
        parts = [
            ((found[i] - wanted[i]) ** 2).sum() / (wanted[i] ** 2).sum()
            for wanted, found in maps
            for i in range(len(images))
        ]
    return float(torch.stack(parts).mean())


def test_the_stages_change_the_maps_least(monkeypatch, segmenter):
    sets = [(1,), (2,), (1, 3)]
    monkeypatch.setattr(calibration, "stage_sets", lambda depth: sets)
    found = skimba.prune(segmenter, "hold", skimba.Flops(TARGET, images=pictures()))
    others = [skimba.prune(segmenter, "hold", skimba.Flops(TARGET, stages=stages)) for stages in sets]
    changed = [map_change(segmenter.backbone, other.backbone, pictures()) for other in others]
    assert len(set(changed)) == 3
    assert tuple(found.backbone.reducer.schedule) == sets[changed.index(min(changed))]


def test_a_change_is_that_of_the_maps_as_restored(segmenter):
    pruned = [skimba.prune(segmenter, "hold", {1: 0.5}).backbone for _ in range(2)]
    for backbone, way in zip(pruned, ("zeros", "last"), strict=True):
        backbone.restore = way
    found = changes(segmenter.backbone, pruned, pictures(3))
    assert found == pytest.approx([map_change(segmenter.backbone, one, pictures(3)) for one in pruned], rel=1e-4)
    assert found[0] > 2 * found[1]  # the pooled tokens of both are the same
    assert changes(segmenter.backbone, [segmenter.backbone], pictures()) == [0]


@pytest.mark.parametrize("method", ["hold", "top"])
def test_a_model_without_a_head_answers_by_its_last_map(method):
    model = tiny_vim(num_classes=0).eval()
    images = torch.randn(3, 3, 24, 32)
    pruned = skimba.prune(model, method, {2: 0.5})
    with torch.no_grad():
        (wanted,) = model.forward_intermediates(images, 1, intermediates_only=True)
        (found,) = pruned.forward_intermediates(images, 1, intermediates_only=True)
    parts = (found - wanted).square().flatten(1).sum(1) / wanted.square().flatten(1).sum(1)
    assert changes(model, [pruned], images)[0] == pytest.approx(float(parts.mean()), rel=1e-4)
    assert skimba.prune(model, method, skimba.Flops(0.9, images=images)).reducer.measured.flops_share <= 0.9


def test_targets_are_met_at_the_picture_size_of_the_task(monkeypatch):
    """FLOPs are those of the backbone at that size, and what is timed is the backbone on pictures of that size."""
    timed, size = [], (64, 96)

    def machine(dense, pruned, images):
        timed.append((dense, tuple(images.shape)))
        share = share_of(pruned, dense)
        return Measured(None, 1 / share, 10 * share, len(images))

    def share_of(pruned, dense):
        return skimba.count_flops(pruned, size, "exact").total / skimba.count_flops(dense, size, "exact").total

    for module in (calibration, targets):
        monkeypatch.setattr(module, "measure", machine)
    sizes = {"num_classes": 3, "img_size": 128, "patch_size": 8, "embed_dim": 16, "depth": 4}
    model = skimba.mask_rcnn("vim_micro", largest=size, **sizes).eval()
    assert share_of(skimba.prune(model, schedule=skimba.Flops(0.7)).backbone, model.backbone) == pytest.approx(
        0.7, abs=0.02
    )
    for target in (skimba.Speedup(1.3, batch_size=2), skimba.Milliseconds(8, batch_size=2)):
        found = skimba.prune(model, schedule=target)
        assert share_of(found.backbone, model.backbone) == pytest.approx(0.78, abs=0.04)
    assert {shape for _, shape in timed} == {(2, 3, *size)}
    assert all(isinstance(dense, type(model.backbone)) for dense, _ in timed)
