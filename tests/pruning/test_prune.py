"""What holds for every way of pruning, on both models."""

import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import skimba
from skimba.insight import trace
from skimba.pruning import (
    DISORDERS,
    IMPORTANCE,
    LIKENESS,
    OWNER,
    PAIRS,
    PRESETS,
    REDUCTION,
    SELECTION,
    paper_schedule,
    stage_count,
)

KEEP = {1: 0.7, 2: 0.6, 4: 0.5}
ALIGNS = ("none", "decay", "hold")
METHODS = [
    *(
        {"reduction": r, "align": a}
        for r, a in itertools.product(REDUCTION, ALIGNS)
        if r not in DISORDERS or a == "none"
    ),
    *({"reduction": r, "importance": i} for r, i in itertools.product(("drop", "merge"), IMPORTANCE)),
    *({"reduction": "drop", "importance": "clip", "selection": s, "align": a} for s in SELECTION for a in ALIGNS),
    *({"reduction": r, "owner": o} for r, o in itertools.product(("drop", "merge"), OWNER)),
    *({"reduction": r, "likeness": k, "align": "none"} for r, k in itertools.product(sorted(PAIRS), LIKENESS)),
    *({"likeness": k} for k in LIKENESS),
    *({"preset": name} for name in PRESETS),
]


@pytest.fixture(params=METHODS, ids=lambda m: "-".join(m.values()))
def method(request):
    return request.param


def test_tokens_are_really_removed_and_stay_in_order(model, images, method):
    lengths = []
    for block in model.layers:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].x.shape[1]))
    pruned = skimba.prune(model, keep=KEEP, **method)
    with torch.no_grad():
        stages = trace(pruned, images)
    extra = model.class_token_count
    counts = [48]
    for share in KEEP.values():
        counts.append(stage_count(counts[-1], share, bool(extra)))
    assert [stage.x.shape[1] for stage in stages] == [count + extra for count in counts]
    assert lengths == [counts[0] + extra, counts[1] + extra, counts[2] + extra, counts[2] + extra]
    for stage in stages:
        position = stage.position
        in_order = pruned.reducer.method.reduction not in DISORDERS
        assert ((position if in_order else position.sort(1).values).diff(dim=1) > 0).all()
        assert stage.scan is None or stage is stages[0]
        if extra:
            rank = stage.extra_places
            assert position.gather(1, rank).eq(24).all()
            if stage.owner is not None:
                assert (stage.owner == rank).nonzero()[:, 1].tolist() == [24] * len(images)
        if stage.owner is not None:
            own = stage.owner.gather(1, position)  # every kept token owns its own position
            assert torch.equal(own, torch.arange(position.shape[1]).expand_as(own))
            assert stage.layout.size.sum(1).eq(48 + extra).all()


def test_an_image_does_not_depend_on_its_batch(model, images, method):
    pruned = skimba.prune(model, keep=KEEP, **method)
    with torch.no_grad():
        together = pruned(images)
        alone = torch.cat([pruned(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_keeping_all_is_the_dense_model_bit_for_bit(model, images, method):
    pruned = skimba.prune(model, keep={1: 1.0, 3: 1}, **method)
    with torch.no_grad():
        assert torch.equal(pruned(images), model(images))


def test_gradients_reach_every_parameter_that_the_logits_depend_on(model, images, method):
    pruned = skimba.prune(model, keep=KEEP, **method)
    pruned(images).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


@pytest.mark.parametrize("keep", [KEEP, {1: 0.7, 2: 0.6}, {3: 0.5}])
def test_what_the_head_does_not_read_changes_no_answer(model, images, method, keep):
    whole, head_only = (skimba.prune(model, keep=keep, head_only=choice, **method) for choice in (False, True))
    found = []
    for pruned in (whole, head_only):
        model.zero_grad()
        logits = pruned(images)
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_what_the_head_does_not_read_is_not_computed(model, images):
    shapes = []
    model.layers[-1].register_forward_hook(lambda _, inputs, tokens: shapes.append(tuple(tokens.x.shape)))
    read = {}
    for head_only in (False, True):
        pruned = skimba.prune(model, keep={1: 0.5}, head_only=head_only)
        with torch.no_grad(), FlopCounterMode(display=False) as products:
            pruned(images[:1])
        read[head_only] = products.get_total_flops() // 2
        assert pruned.forward_features(images).x.shape[1] == 24 + model.class_token_count, "features are of all tokens"
    if model.class_token_count:
        assert shapes[0] == (1, 25, 16)
        assert shapes[2] == (1, 1, 16)
        # 24 tokens' gates and outputs, and half of the tokens' projections in each direction
        assert read[False] - read[True] == 24 * 2 * 16 * 32 + 24 * 32 * (1 + 2 * 16) + 24 * 32
    else:
        assert read[False] == read[True]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_original_stays_dense_and_the_weights_are_shared(model, images, preset):
    with torch.no_grad():
        before = model(images)
        pruned = skimba.prune(model, preset, keep=KEEP)
        assert not torch.equal(pruned(images), before)
        assert torch.equal(model(images), before)
    own = {name: p for name, p in pruned.named_parameters() if not name.startswith("scorer.")}  # a learned importance's
    assert own.keys() == dict(model.named_parameters()).keys()
    assert all(own[name] is parameter for name, parameter in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(skimba.prune(pruned, keep={1: 1.0})(images), before)


def test_the_default_is_hold(model):
    assert skimba.prune(model).reducer == skimba.prune(model, "hold").reducer


@pytest.mark.parametrize("conv", [False, "condensed", "zeros", "held"])
@pytest.mark.parametrize("align", ["none", "decay", "hold"])
def test_the_convolutions_alignment_is_a_choice_of_its_own(model, images, align, conv):
    reductions = ("merge", "drop") if conv == "held" or align == "hold" else ("drop",)
    for reduction in reductions:
        with torch.no_grad():
            got = skimba.prune(model, keep=KEEP, reduction=reduction, align=align, align_conv=conv)(images)
        assert got.isfinite().all()
    if conv is not False:
        own = {"none": "condensed", "decay": "zeros", "hold": "held"}[align]
        with torch.no_grad():
            usual = skimba.prune(model, keep=KEEP, reduction=reductions[-1], align=align)(images)
        assert torch.equal(got, usual) == (conv == own)


def test_a_function_serves_wherever_a_name_does(model, images):
    def first(tokens, count, seed):
        return -tokens.position.float()

    pruned = skimba.prune(model, keep={2: 0.5}, reduction="drop", importance=first, align="decay")
    with torch.no_grad():
        position = trace(pruned, images)[-1].position
    kept = list(range(24)) + [24] * model.class_token_count
    assert position.tolist() == [kept] * len(images)


@pytest.mark.parametrize(
    ("present", "share", "with_class", "without"),
    [
        (196, 0.8, 156, 157),
        (156, 0.8, 124, 125),
        (124, 0.8, 100, 100),
        (100, 0.55, 54, 55),
        (49, 0.5, 24, 25),
        (5, 0.01, 2, 1),
        (1, 0.5, 1, 1),
        (7, 1.0, 7, 7),
        (2, 0.5, 2, 1),
    ],
)
def test_counts_are_the_published_ones(present, share, with_class, without):
    assert stage_count(present, share, has_class=True) == with_class
    assert stage_count(present, share, has_class=False) == without


def test_counts_never_exceed_what_is_there():
    for present, percent, has_class in itertools.product(range(1, 60), range(1, 101), (False, True)):
        count = stage_count(present, percent / 100, has_class)
        assert 1 <= count <= present
        assert count <= max(math.ceil(percent * present / 100), 2)


def test_paper_schedules():
    def schedule(name):
        with torch.device("meta"):
            return paper_schedule(skimba.create_model(name))

    assert schedule("vim_small_patch16_224") == schedule("vim_base_patch16_224") == {5: 0.8, 10: 0.8, 15: 0.8}
    assert schedule("vim_tiny_patch16_224") == {10: 0.8, 20: 0.8}
    assert schedule("vim_micro") == {2: 0.8, 4: 0.8, 6: 0.8}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "best"}, "unknown preset 'best'; known: top, hold, evit"),
        ({"keep": {0: 0.5}}, r"blocks from 1 to 4 .* got 0"),
        ({"keep": {5: 0.5}}, "got 5"),
        ({"keep": {"one": 0.5}}, "got 'one'"),
        ({"keep": {True: 0.5}}, "got True"),
        ({"keep": {1: 0.0}}, r"shares in \(0, 1\], got 0.0 after block 1"),
        ({"keep": {1: 1.1}}, "got 1.1"),
        ({"keep": {1: -0.5}}, "got -0.5"),
        ({"keep": {1: float("nan")}}, "got nan"),
        ({"keep": {1: "half"}}, "got 'half'"),
        ({"keep": {1: 0.4}, "reduction": "bipartite"}, "bipartite matching removes at most half"),
        ({"importance": "attention"}, "unknown importance 'attention'; known: clip"),
        ({"reduction": "mask"}, "unknown reduction 'mask'; known: drop, merge, bipartite"),
        ({"align": "shift"}, "unknown align 'shift'; known: none, decay, hold"),
        ({"owner": "random"}, "unknown owner 'random'; known: similar, nearest, similar_near"),
        ({"align_conv": "ones"}, "unknown align_conv 'ones'"),
        ({"selection": "best"}, "unknown selection 'best'; known: top, segments, windows, or a function"),
        ({"likeness": "dot"}, "unknown likeness 'dot'; known: cosine, ward, hidden, local, or a function"),
        ({"stages": "late", "target_flops": 0.7}, "unknown stages 'late'; known: quarters, early, every, even"),
        ({"preset": "tome", "align": "hold"}, "out of scan order, .* got 'hold'"),
        ({"target_flops": 1.0}, r"share of the dense model's FLOPs in \(0, 1\), got 1.0"),
        ({"target_flops": 0.1}, "comes down to 0.[0-9]+ of the FLOPs, got target 0.1"),
        ({"target_speedup": 0.5}, "target_speedup must be above 1, got 0.5"),
        ({"target_flops": 0.5, "keep": {1: 0.5}}, "got keep and target_flops"),
        ({"gap_delta": "next"}, "unknown gap_delta 'next'; known: previous, own, bias"),
    ],
)
def test_bad_settings_are_refused_before_any_work(model, settings, says):
    with pytest.raises(ValueError, match=says):
        skimba.prune(model, **settings)


def test_only_skimba_models_are_pruned():
    with pytest.raises(TypeError, match="got Linear"):
        skimba.prune(torch.nn.Linear(2, 2))


def test_a_score_of_the_wrong_shape_is_refused(model, images):
    pruned = skimba.prune(model, "top", keep=KEEP, importance=lambda tokens, count, seed: torch.zeros(3))
    with pytest.raises(ValueError, match="a score for each token"):
        pruned(images)
