"""What holds for every way of pruning, on both models."""

import inspect
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import skimba
from skimba import DECAY, HOLD, METHODS, Alignment, Drop, Flops, Hybrid, Merge, Method, Pairs, Speedup
from skimba.insight import trace
from skimba.layers.local_mamba import LocalMixer
from skimba.pruning import paper_schedule, stage_count
from tests.pruning.tried import TRIED

KEEP = {1: 0.7, 2: 0.6, 4: 0.5}


@pytest.fixture(params=TRIED.values(), ids=TRIED)
def method(request):
    return request.param


def test_tokens_are_really_removed_and_stay_in_order(model, images, method):
    lengths = []
    for block in model.layers:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].x.shape[1]))
    pruned = skimba.prune(model, method, KEEP)
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
        in_order = method.reduction.keeps_order
        assert ((position if in_order else position.sort(1).values).diff(dim=1) > 0).all()
        assert stage.scan is None or stage is stages[0]
        if extra:
            rank = stage.extra_places
            places = torch.tensor(stage.layout.extras)
            assert position.gather(1, rank).eq(places).all()
            if stage.owner is not None:
                own = stage.owner[:, None] == rank[..., None]  # positions that each extra token owns
                assert own.nonzero()[:, 2].view(-1, extra).eq(places).all()
        if stage.owner is not None:
            own = stage.owner.gather(1, position)  # every kept token owns its own position
            assert torch.equal(own, torch.arange(position.shape[1]).expand_as(own))
            assert stage.layout.size.sum(1).eq(48 + extra).all()


def test_an_empty_batch_has_no_answers(model, images, method):
    assert skimba.prune(model, method, KEEP)(images[:0]).shape == (0, 5)


def test_an_image_does_not_depend_on_its_batch(model, images, method):
    pruned = skimba.prune(model, method, KEEP)
    with torch.no_grad():
        together = pruned(images)
        alone = torch.cat([pruned(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_keeping_all_is_the_dense_model_bit_for_bit(model, images, method):
    pruned = skimba.prune(model, method, {1: 1.0, 3: 1})
    with torch.no_grad():
        assert torch.equal(pruned(images), model(images))


def test_gradients_reach_every_parameter_that_the_logits_depend_on(model, images, method):
    pruned = skimba.prune(model, method, KEEP)
    pruned(images).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


@pytest.mark.parametrize("keep", [KEEP, {1: 0.7, 2: 0.6}, {3: 0.5}], ids=["first", "early", "once"])
def test_what_the_head_does_not_read_changes_no_answer(model, images, method, keep):
    whole, head_only = (skimba.prune(model, replace(method, head_only=choice), keep) for choice in (False, True))
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
        pruned = skimba.prune(model, replace(METHODS["hold"], head_only=head_only), {1: 0.5})
        with torch.no_grad(), FlopCounterMode(display=False) as products:
            pruned(images[:1])
        read[head_only] = products.get_total_flops() // 2
        assert pruned.forward_features(images).x.shape[1] == 24 + model.class_token_count, "features are of all tokens"
    if extra := model.class_token_count:
        assert shapes[0] == (1, 24 + extra, 16)
        assert shapes[2] == (1, extra, 16)
        gates = outputs = 24 * 16 * 32
        if isinstance(model.layers[-1].mixer, LocalMixer):
            saved = outputs  # its walks go to the end, and are gated there
        else:  # to a single token half of the tokens' projections in each direction are saved, too
            saved = gates + outputs + (24 * 32 * (1 + 2 * 16) + 24 * 32 if extra == 1 else 0)
        assert read[False] - read[True] == saved
    else:
        assert read[False] == read[True]


@pytest.mark.parametrize("name", METHODS)
def test_the_original_stays_dense_and_the_weights_are_shared(model, images, name):
    with torch.no_grad():
        before = model(images)
        pruned = skimba.prune(model, name, KEEP)
        assert not torch.equal(pruned(images), before)
        assert torch.equal(model(images), before)
    own = {name: p for name, p in pruned.named_parameters() if not name.startswith("scorer.")}  # a learned importance's
    assert own.keys() == dict(model.named_parameters()).keys()
    assert all(own[name] is parameter for name, parameter in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(skimba.prune(pruned, schedule={1: 1.0})(images), before)
        dense = skimba.unprune(pruned)
        assert torch.equal(dense(images), before)
        assert dense.reducer is None
        assert pruned.reducer is not None


def test_the_default_is_hold(model):
    assert skimba.prune(model).reducer == skimba.prune(model, "hold").reducer


@pytest.mark.parametrize("conv", ["condensed", "zeros", "held"])
@pytest.mark.parametrize("scan", ["none", "decay", "hold", "hold_first_order"])
def test_the_convolutions_alignment_is_a_choice_of_its_own(model, images, scan, conv):
    reductions = (Merge(), Drop()) if conv == "held" or scan.startswith("hold") else (Drop(),)
    for reduction in reductions:
        with torch.no_grad():
            got = skimba.prune(model, Method(reduction, Alignment(scan, conv)), KEEP)(images)
        assert got.isfinite().all()
    own = {"none": "condensed", "decay": "zeros"}.get(scan, "held")
    with torch.no_grad():
        usual = skimba.prune(model, Method(reductions[-1], scan), KEEP)(images)
    assert torch.equal(got, usual) == (conv == own)


def test_a_function_serves_wherever_a_name_does(model, images):
    def first(tokens, count, seed):
        return -tokens.position.float()

    pruned = skimba.prune(model, Method(Drop(score=first), align=DECAY), {2: 0.5})
    with torch.no_grad():
        last = trace(pruned, images)[-1]
    image = [p for p in range(last.layout.full_length) if p not in last.layout.extras]
    assert last.position.tolist() == [sorted([*image[:24], *last.layout.extras])] * len(images)


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
    assert stage_count(present, share, has_extra=True) == with_class
    assert stage_count(present, share, has_extra=False) == without


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


def pruned_by(*arguments, **more):
    return lambda model: skimba.prune(model, *arguments, **more)


REFUSED = {
    "unknown method 'best'; known: hold, hold_clips, top, condensed, evit": pruned_by("best"),
    r"blocks from 1 to 4 .* got 0": pruned_by("hold", {0: 0.5}),
    "depth.*, got 5": pruned_by("hold", {5: 0.5}),
    "got 'one'": pruned_by("hold", {"one": 0.5}),
    "got True": pruned_by("hold", {True: 0.5}),
    "block 2 twice": pruned_by("hold", {2: 0.5, "2": 0.5}),
    r"shares in \(0, 1\], got 0.0 after block 1": pruned_by("hold", {1: 0.0}),
    "got 1.1": pruned_by("hold", {1: 1.1}),
    "got -0.5": pruned_by("hold", {1: -0.5}),
    "got nan": pruned_by("hold", {1: float("nan")}),
    "got 'half'": pruned_by("hold", {1: "half"}),
    r"got \[0.5\] after block 1": pruned_by("hold", {1: [0.5]}),
    "an amount is a table with one of share, count": pruned_by("hold", {1: {"most": 3}}),
    "an empty schedule removes nothing": pruned_by("hold", {}),
    "removes at most half of the tokens at one stage.*got Share": pruned_by("r_meeto", {1: 0.4}),
    "removes at most half of the tokens at one stage.*got Count": pruned_by("r_meeto", {1: 10}),
    "unknown score 'attention'; known: clip": lambda _: Drop(score="attention"),
    "unknown align 'shift'|align is one of none, decay, hold": lambda _: Method(align="shift"),
    "unknown owner 'random'; known: similar, nearest, similar_near": lambda _: Merge(owner="random"),
    "unknown conv 'ones'": lambda _: Method(align=Alignment("none", "ones")),
    "unknown selection 'best'; known: highest, segments, windows, or a function": lambda _: Drop(selection="best"),
    "unknown likeness 'dot'; known: cosine, ward, ward_near, hidden, local, or a function": lambda _: Pairs(
        likeness="dot"
    ),
    "unknown walk 'spiral'; known: sequence, snake": lambda _: Pairs("spiral"),
    "unknown stages 'late'; known: quarters, early, first, every, even": lambda _: Flops(0.7, stages="late"),
    "order must be 'scan' or 'score', got 'sides'": lambda _: Drop(order="sides"),
    "order must be 'scan' or 'sides', got 'score'": lambda _: Pairs(order="score"),
    "out of scan order, .* got Alignment": lambda _: replace(METHODS["tome"], align=HOLD),
    "owner='nearest' has no effect": lambda _: Method(Drop(owner="nearest"), DECAY),
    r"share of the dense model's FLOPs in \(0, 1\), got 1.0": lambda _: Flops(1.0),
    "comes down to 0.[0-9]+ of the FLOPs, got target 0.1": pruned_by("hold", Flops(0.1)),
    "Speedup takes a number above 1, got 0.5": lambda _: Speedup(0.5),
    "batch_size is a whole number from 1 on, got 0": lambda _: Speedup(2.0, batch_size=0),
    "Milliseconds takes a time above 0, got -1": lambda _: skimba.Milliseconds(-1),
    r"stages are blocks from 1 to 4 \(the model's depth\), got 9": pruned_by("hold", Flops(0.9, stages=(1, 9))),
    "stages are block numbers from 1 on, got 0": lambda _: Flops(0.9, stages=[0, 1]),
    "images choose the stages": lambda model: skimba.prune(
        model, "hold", Flops(0.9, images=torch.zeros(1, 3, 24, 32), stages="every")
    ),
    "unknown scan 'next'": lambda _: Alignment("next", "zeros"),
    "unknown counts 'p'; known: mass": lambda _: Method(counts="p"),
    "Own weighs no tokens, so counts must be None, got 'mass'": lambda _: Method(
        lambda tokens, stage: tokens, counts="mass"
    ),
    r"with counts a schedule has shares of the weight only, got Count\(tokens=9\) after block 2": pruned_by(
        replace(METHODS["top"], counts="mass"), {2: 9}
    ),
    "Count takes a whole number of tokens from 1 on, got 0": lambda _: skimba.Count(0),
    "Remove takes a whole number of tokens from 1 on, got 1.5": lambda _: skimba.Remove(1.5),
}


@pytest.mark.parametrize("says", REFUSED)
def test_bad_settings_are_refused_before_any_work(model, says):
    with pytest.raises(ValueError, match=says):
        REFUSED[says](model)


OF_ANOTHER_KIND = {
    r"a schedule is \{block: share\}, Flops.*got 0.7; a share of the FLOPs is skimba.Flops": pruned_by("hold", 0.7),
    r"a schedule is \{block: share\}.*got \[0.7\]": pruned_by("hold", [0.7]),
    r"a schedule is \{block: share\}.*got 'flops'": pruned_by("hold", "flops"),
    r"method is a name .* got \{'a': 1\}": pruned_by({"a": 1}),
    r"did you mean Method\(Drop": pruned_by(Drop()),
    "a reduction is .* got 'drop'": lambda _: Method("drop"),
    r"a reduction is .* got <class": lambda _: Method(Drop),
    r"score is a name .* or a function, got \['clip'\]": lambda _: Drop(["clip"]),
    "align is one of none, decay, hold, hold_first_order .* got 3": lambda _: Method(align=3),
    r"stages are block numbers or one of .* got \{1\}": lambda _: Flops(0.7, stages={1}),
    "head_only must be True or False, got 1": lambda _: Method(head_only=1),
    "once must be True or False, got 'no'": lambda _: Pairs(once="no"),
    "seed is a whole number, got 'x'": pruned_by("hold", seed="x"),
    "images are a tensor": lambda _: Flops(0.7, images=[1]),
    "Flops takes a share .* got '0.6'": lambda _: Flops("0.6"),
    "unexpected keyword argument 'score'": lambda _: Pairs(score="clip"),
    "unexpected keyword argument 'owner'": lambda _: Pairs(owner="similar"),
    "unexpected keyword argument 'owner' ": lambda _: Hybrid(owner="similar"),
    "unexpected keyword argument 'batch_size'": lambda _: Flops(0.6, batch_size=8),
    "unexpected keyword argument 'likeness'": lambda _: Merge(likeness="ward"),
    "unexpected keyword argument 'gap_delta'": pruned_by("hold", gap_delta="own"),
    "unexpected keyword argument 'keep'": pruned_by("hold", keep={1: 0.5}),
}


@pytest.mark.parametrize("says", OF_ANOTHER_KIND)
def test_what_is_of_another_kind_or_would_be_ignored_is_refused(model, says):
    with pytest.raises(TypeError, match=says.strip()):
        OF_ANOTHER_KIND[says](model)


def test_the_call_fits_on_a_screen():
    assert len(inspect.signature(skimba.prune).parameters) <= 5
    assert len(inspect.getdoc(skimba.prune).splitlines()) <= 40


def test_print_shows_method_schedule_and_counts(model):
    shown = str(skimba.prune(model, "top", {1: 0.5, 3: 7}))
    counts = "48 → 24 → 7 image tokens"
    for part in (
        "pruned by top: Drop(score='clip'",
        "0.5 of the tokens after block 1, Count(tokens=7) after block 3",
        counts,
    ):
        assert part in shown
    assert "own method" in str(skimba.prune(model, Method(Merge(lambda tokens, count, seed: tokens.position.float()))))
    assert "pruned" not in str(skimba.unprune(model))


def test_only_skimba_models_are_pruned():
    with pytest.raises(TypeError, match="got Linear"):
        skimba.prune(torch.nn.Linear(2, 2))


def test_a_score_of_the_wrong_shape_is_refused(model, images):
    pruned = skimba.prune(model, Method(Drop(lambda tokens, count, seed: torch.zeros(3))), KEEP)
    with pytest.raises(ValueError, match="one number for each token"):
        pruned(images)
    pruned = skimba.prune(model, Method(Pairs(likeness=lambda tokens, a, b: torch.zeros(3))), KEEP)
    with pytest.raises(ValueError, match="one number for each pair"):
        pruned(images)
