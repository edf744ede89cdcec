from dataclasses import replace

import pytest
import torch

import skimba
from skimba.layers.mixer import Mixer

PUBLISHED = {
    "vim_tiny_patch16_224": 1.45,
    "vim_small_patch16_224": 5.08,
    "vim_base_patch16_224": 18.87,
    "plain_mamba_l1": 3.0,
    "plain_mamba_l2": 8.1,
    "plain_mamba_l3": 14.4,
}
EXACT = {"vim_tiny_patch16_224": 1.82, "vim_small_patch16_224": 5.91, "vim_base_patch16_224": 20.89}
# As the papers of VideoMamba and Mamba-Reg count (repository OpenGVLab/VideoMamba, image_sm/MODEL_ZOO.md; arXiv 2405.14858).
PROJECTIONS = {
    "videomamba_tiny_patch16_224": 1.1,
    "videomamba_small_patch16_224": 4.3,
    "videomamba_small_patch16_576": 28.0,
    "videomamba_middle_patch16_224": 12.7,
    "videomamba_middle_patch16_576": 83.1,
    "mambar_small_patch16_224": 4.5,
    "mambar_base_patch16_224": 17.8,
    "mambar_large_patch16_224": 64.2,
}


def named(name):
    with torch.device("meta"):
        return skimba.create_model(name)


def close(count, giga):
    return abs(count.total / 1e9 - giga) <= max(0.01, 0.01 * giga)


@pytest.mark.parametrize(("name", "giga"), PUBLISHED.items())
def test_published_convention_gives_the_papers_figures(name, giga):
    assert close(skimba.count_flops(named(name)), giga)


@pytest.mark.parametrize(("name", "giga"), EXACT.items())
def test_exact_convention_counts_both_directions(name, giga):
    assert close(skimba.count_flops(named(name), convention="exact"), giga)


@pytest.mark.parametrize(("name", "giga"), PROJECTIONS.items())
def test_videomambas_and_mamba_regs_papers_count_patches_and_projections_alone(name, giga):
    model = named(name)
    patches = model.grid[0] * model.grid[1]
    projections = [block.mixer.get_submodule(part) for block in model.layers for part in ("in_proj", "out_proj")]
    found = sum(one.weight.numel() for one in projections) * (patches + model.class_token_count)
    found += model.patch_embed.proj.weight.numel() * patches
    assert found / 1e9 == pytest.approx(giga, abs=0.1)  # the papers round up, too
    assert found < skimba.count_flops(model).total


def test_pruned_models_give_the_papers_figures():
    assert close(skimba.count_flops(skimba.prune(named("vim_small_patch16_224"), "top")), 3.57)
    assert close(skimba.count_flops(skimba.prune(named("plain_mamba_l3"), "top")), 8.44)


def test_more_tokens_cost_more_and_fewer_less(model):
    dense = skimba.count_flops(model, convention="exact")
    assert skimba.count_flops(model, (48, 64), "exact").total > 3.5 * dense.total
    pruned = skimba.count_flops(skimba.prune(model, schedule={2: 0.5}), convention="exact")
    assert pruned.total < dense.total
    assert pruned.by_module["reducer"] == 24 * 24 * 16  # the matching's cosines
    layers = [name for name in pruned.by_module if "layers.2." in name]
    assert all(pruned.by_module[name] < dense.by_module[name] for name in layers)


def test_the_last_block_counts_what_its_head_reads():
    model = named("vim_small_patch16_224")
    for convention, directions in (("exact", 2), ("published", 1)):
        last = {
            head_only: skimba.count_flops(
                skimba.prune(model, replace(skimba.METHODS["top"], head_only=head_only)), convention=convention
            ).by_module["layers.23.mixer"]
            for head_only in (False, True)
        }
        per_step = 768 * (24 + 32) + 24 * 768 + 9 * 768 * 16 + 2 * 768
        assert last[False] - last[True] == 100 * 2 * 384 * 768 + (101 * directions - 102 * directions // 2) * per_step


def test_counting_leaves_the_model_as_it_was(model, images):
    with torch.no_grad():
        before = model(images)
        skimba.count_flops(model)
        assert torch.equal(model(images), before)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_subclassed_mixer_and_a_subclassed_linear_layer_count_as_their_parents(model):
    expected = skimba.count_flops(model, convention="exact")
    for block in model.layers:
        block.mixer.__class__ = type("Mine", (type(block.mixer),), {})
    linear = type("MyLinear", (torch.nn.Linear,), {})
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = linear
    assert skimba.count_flops(model, convention="exact") == expected


def test_a_mixer_that_cannot_say_its_multiply_adds_is_an_error_and_not_zero(model):
    class Silent(Mixer):
        def forward(self, hidden, layout, *rest):
            return hidden, None

    name = "mixer" if "mixer" in model.layers[1]._modules else "mamba"
    setattr(model.layers[1], name, Silent(16, 4, 2, bias=False))
    with pytest.raises(NotImplementedError, match="Silent does not say its multiply-adds"):
        skimba.count_flops(model)
    setattr(model.layers[1], name, torch.nn.Identity())
    with pytest.raises(TypeError, match=r"layers\.1 mixes by Identity, which cannot say its multiply-adds"):
        skimba.count_flops(model)


def test_an_unknown_convention_is_refused(model):
    with pytest.raises(ValueError, match="known: published, exact"):
        skimba.count_flops(model, convention="mine")
