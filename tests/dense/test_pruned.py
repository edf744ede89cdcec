"""Dense models with pruned backbones."""

from dataclasses import replace

import pytest
import torch

import skimba
from skimba.layers.deformable import DeformableAttention
from skimba.tokens import RESTORE, take

KEEP = {1: 0.5, 3: 0.5}


def batch(count=3):
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def maps_of(model, images):
    with torch.no_grad():
        return model.backbone.forward_maps(images)


@pytest.mark.parametrize("way", RESTORE)
def test_keeping_all_is_the_dense_model(dense_model, way):
    pruned = skimba.prune(dense_model, schedule={1: 1.0, 3: 1.0})
    pruned.backbone.restore = way
    for got, expected in zip(maps_of(pruned, batch()), maps_of(dense_model, batch()), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("way", RESTORE)
@pytest.mark.parametrize("method", ["hold", "top"])
def test_pruned_maps_have_the_full_size_and_differ(dense_model, method, way):
    pruned = skimba.prune(dense_model, method, KEEP)
    pruned.backbone.restore = way
    if method == "top" and way in ("owner", "last_plus_change"):
        with pytest.raises(ValueError, match=f"restore '{way}' needs positions with owners"):
            maps_of(pruned, batch())
        return
    found, expected = maps_of(pruned, batch()), maps_of(dense_model, batch())
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert all(one.isfinite().all() for one in found)
    assert not torch.allclose(found[-1], expected[-1])


def test_pruning_shares_the_weights_and_leaves_the_model_dense(detector):
    before = maps_of(detector, batch())
    pruned = skimba.prune(detector, schedule=KEEP)
    assert pruned is not detector
    assert type(pruned) is type(detector)
    assert detector.backbone.reducer is None
    assert pruned.backbone.reducer is not None
    own, theirs = dict(detector.named_parameters()), dict(pruned.named_parameters())
    assert own.keys() == theirs.keys()
    assert all(own[name].data_ptr() == theirs[name].data_ptr() for name in own)
    pruned.train()
    assert not detector.training
    assert not detector.backbone.training
    for got, expected in zip(maps_of(detector, batch()), before, strict=True):
        assert torch.equal(got, expected)


def test_another_dtype_of_the_pruned_model_leaves_the_dense_one(detector):
    pruned = skimba.prune(detector, schedule=KEEP).to(torch.bfloat16)
    assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}
    assert pruned.neck is not detector.neck
    assert next(pruned.neck.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("way", ["owner", "last", "last_plus_change"])
def test_a_picture_does_not_depend_on_its_batch_where_counts_differ_by_image(dense_model, way):
    by_image = replace(skimba.METHODS["hold"], reduction=skimba.Pairs(likeness="ward"), counts="mass")
    pruned = skimba.prune(dense_model, by_image, {1: 0.7, 3: 0.7})
    pruned.backbone.restore = way
    together = maps_of(pruned, batch())
    parts = pruned.backbone.run(pruned.backbone.start(batch()), 1, 4)
    assert len({part.tokens.x.shape[1] for part in parts}) > 1  # the batch did fall apart
    for number in range(3):
        alone = maps_of(pruned, batch()[number : number + 1])
        for got, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(got[0], expected[number], rtol=1e-3, atol=1e-4)


def test_after_hold_every_cell_shows_its_owner():
    """With `owner` the map of the last block is what its tokens own: cells of one owner are equal, and nothing is lost."""
    model = skimba.upernet("vim_micro", num_classes=3, img_size=64, embed_dim=16, depth=4).eval()
    pruned = skimba.prune(model, "hold", {1: 0.5})
    pruned.backbone.restore = "owner"
    with torch.no_grad():
        (part,) = pruned.backbone.run(pruned.backbone.start(batch(1)), 1, 4)
        full = part.shown().full()
    assert torch.equal(full, part.tokens.scatter().flatten(1, 2))
    assert len(full[0].unique(dim=0)) == part.tokens.layout.image_count


def test_the_class_token_is_left_out_of_the_maps():
    model = skimba.upernet("vim_micro", num_classes=3, img_size=64, embed_dim=16, depth=4).eval()
    assert model.backbone.class_token_count == 1
    for got in maps_of(model, batch()):
        assert got.shape == (3, 16, 8, 12)


def test_pruned_models_train(detector, pictures, objects):
    pruned = skimba.prune(detector, schedule=KEEP).train()
    losses = pruned(pictures, objects)
    sum(losses.values()).backward()
    without = {name for name, p in pruned.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


def test_pruning_twice_starts_from_the_whole_model(detector):
    once = skimba.prune(detector, schedule=KEEP)
    again = skimba.prune(once, schedule={2: 0.5})
    assert again.backbone.reducer.schedule == {2: 0.5}


@pytest.mark.parametrize("name", ["plain_mamba_micro", "vim_micro"])
def test_a_target_is_a_share_of_the_backbone(name):
    detector = skimba.mask_rcnn(name, num_classes=3)
    pruned = skimba.prune(detector, schedule=skimba.Flops(0.8))
    counts = [skimba.count_flops(model.backbone, convention="exact").total for model in (pruned, detector)]
    assert counts[0] / counts[1] == pytest.approx(0.8, abs=0.02)


def test_pruning_makes_the_backbone_cheaper_and_no_head(dense_model):
    dense = skimba.count_flops(dense_model, (64, 96), "exact")
    pruned = skimba.count_flops(skimba.prune(dense_model, schedule=KEEP), (64, 96), "exact")
    assert sum(dense.by_part.values()) == dense.total
    assert pruned.by_part["backbone"] < dense.by_part["backbone"]
    mixers = [name for name in dense.by_module if name.endswith((".mamba", ".mixer"))]
    assert len(mixers) == 4
    for mixer in mixers[1:]:
        assert pruned.by_module[mixer] < 0.7 * dense.by_module[mixer]
    heads = dense.by_part.keys() - {"backbone", "adapter"}
    assert heads
    assert all(pruned.by_part[head] == dense.by_part[head] for head in heads)


@pytest.mark.parametrize(
    ("make", "size", "published"),
    [
        (skimba.mask_rcnn, (800, 1280), (388.9, 542.4, 696.8)),
        (skimba.upernet, (512, 2048), (174.3, 284.7, 419.0)),
    ],
)
def test_published_flops(make, size, published):
    for number, giga in enumerate(published, 1):
        with torch.device("meta"):
            model = make(f"plain_mamba_l{number}")
        assert skimba.count_flops(model, size).total / 1e9 == pytest.approx(giga, abs=0.1)


@pytest.mark.parametrize(
    ("make", "size", "shares"),
    [
        (skimba.mask_rcnn, (800, 1280), (0.16, 0.30, 0.42)),
        (skimba.upernet, (512, 2048), (0.36, 0.59, 0.72)),
    ],
)
def test_published_shares_of_the_backbone(make, size, shares):
    for number, share in enumerate(shares, 1):
        with torch.device("meta"):
            model = make(f"plain_mamba_l{number}")
        count = skimba.count_flops(model, size)
        assert count.by_part["backbone"] / count.total == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("convention", ["published", "exact"])
def test_deformable_attention_is_counted_with_what_it_reads(convention):
    with torch.device("meta"):
        model = skimba.mask_rcnn("plain_mamba_l1")
    name = "backbone.interactions.0.injector.attn"
    by_module = skimba.count_flops(model, 224, convention).by_module
    assert by_module[name] == 5 * 196 * 192 * 3 * 4
    assert by_module[f"{name}.value_proj"] == (28**2 + 14**2 + 7**2) * 192**2


def test_a_learned_importance_is_owned_by_the_detector_and_counted_with_the_reducer(detector):
    pruned = skimba.prune(detector, "dyvm", KEEP)
    assert any(name.startswith("backbone.scorer.") for name, _ in pruned.named_parameters())
    by_module = skimba.count_flops(pruned, (64, 96), "exact").by_module
    assert by_module["reducer"] > 0
    assert not any("scorer" in name for name in by_module)


@pytest.mark.parametrize(("way", "projected"), [("owner", 24), ("zeros", 25), ("last", 96)])
def test_the_adapter_serves_present_tokens_and_projects_distinct_values(way, projected):
    """Of 96 tokens 48 and then 24 are left: the last injector serves 24, the extractor after it projects what is distinct."""
    detector = skimba.mask_rcnn("plain_mamba_micro", num_classes=3, depth=4)
    pruned = skimba.prune(detector, schedule={1: 0.5, 3: 0.5})
    pruned.backbone.restore = way
    by_module = skimba.count_flops(pruned, (64, 96)).by_module
    width, last = 64, "backbone.interactions.3"
    assert by_module[f"{last}.injector.attn.output_proj"] == 24 * width**2
    assert by_module[f"{last}.extractor.attn.value_proj"] == projected * width**2
    cells = (8 * 12) + (4 * 6) + (2 * 3)
    assert by_module[f"{last}.extractor.attn.output_proj"] == cells * width**2


def test_values_are_read_as_if_they_had_been_repeated_before():
    torch.manual_seed(0)
    attention = DeformableAttention(16, 2, 1, 4)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    query, values = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    index, reference = torch.randint(7, (2, 12)), torch.rand(5, 2)
    repeated = take(values, index)
    torch.testing.assert_close(
        attention(query, reference, values, [(3, 4)], index), attention(query, reference, repeated, [(3, 4)])
    )
