"""Methods, schedules and prunings as plain data, and what 0.1.0 wrote."""

import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch

import skimba
from skimba import (
    DECAY,
    HOLD,
    METHODS,
    Alignment,
    Count,
    Drop,
    Flops,
    Merge,
    Method,
    Milliseconds,
    OfFirst,
    Pairs,
    Remove,
    Speedup,
)
from skimba.data import embedded_test_images
from skimba.pruning import LIKENESS, OWNER, SCORE, SELECTION, WALK, Pruner, read_settings
from skimba.pruning.schedule import COUNTS, counts_left, read_schedule
from skimba.tokens import ALIGNMENTS, CONV_RULES, SCAN_RULES, ConvRule, ScanRule

OLD = json.loads((Path(__file__).parents[1] / "golden" / "pruned_by_0_1.json").read_text())


def through_json(plain):
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_its_name_through_json(name):
    again = Method.from_dict(through_json(METHODS[name].to_dict()))
    assert (again, again.name) == (METHODS[name], name)
    assert Method.from_dict({"name": name}) is METHODS[name]


def test_a_changed_method_has_no_name_but_all_its_parts():
    own = replace(METHODS["hold"], head_only=False, stages=[4, 2], align=Alignment("decay_own", "held"))
    assert own.name is None
    again = Method.from_dict(through_json(own.to_dict()))
    assert again == own
    assert again.name is None
    assert Method.from_dict({"name": "hold", "head_only": False}) == replace(METHODS["hold"], head_only=False)
    assert Method.from_dict({"name": "hold", "head_only": False}).name is None


def test_a_name_of_another_version_stands_for_the_parts_in_its_file():
    written = {**METHODS["top"].to_dict(), "name": "hold"}
    assert Method.from_dict(written) == METHODS["top"]
    assert Method.from_dict(written).name == "hold"


def test_prunings_travel_through_json(model, images):
    for method, schedule in (
        ("top", Flops(0.9)),
        ("r_meeto", {1: Remove(5), 2: 30, 3: OfFirst(0.5)}),
        ("random", {2: 0.5}),
    ):
        pruned = skimba.prune(model, method, schedule, seed=3)
        plain = through_json(pruned.reducer.to_dict())
        assert plain.keys() == {"method", "schedule", "seed"}
        again = skimba.prune(model, **read_settings(plain))
        assert again.reducer == pruned.reducer
        assert again.reducer.method.name == method
        with torch.no_grad():
            assert torch.equal(again(images), pruned(images))


@pytest.mark.parametrize("target", [Flops(0.6), Speedup(1.5, 4, stages=(1, 2)), Milliseconds(20)])
def test_targets_travel_through_json(target):
    assert read_settings({"schedule": through_json(target.plain())}) == {"schedule": target}


def test_what_no_file_can_hold_is_refused(model):
    def own(*arguments):
        return torch.zeros(1)

    for method, says in (
        (Method(Drop(own)), "a function as score"),
        (Method(Pairs(likeness=own, walk=own)), "a function as walk, likeness"),
        (Method(Drop(), counts=own), "a function as counts"),
        (Method(Drop(), align=Alignment(own, own)), "a function as align"),
        (Method(own), "a function as function"),
    ):
        with pytest.raises(ValueError, match=says):
            skimba.prune(model, method, {1: 0.5}).reducer.to_dict()
    with pytest.raises(ValueError, match="a target with images"):
        Flops(0.5, images=torch.zeros(1, 3, 4, 4)).plain()


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"preset": "hold"}, "prune takes method, schedule, seed; got 'preset'"),
        ({"method": "best"}, "unknown method 'best'"),
        ({"method": {"name": "best"}}, "unknown method 'best'"),
        ({"method": {"name": "hold", "keep": 1}}, "a method has reduction, align, .* got 'keep'"),
        ({"method": {"reduction": {"drop": {"owners": 1}}}}, "drop takes score, selection, owner, order; got 'owners'"),
        ({"method": {"reduction": "mask"}}, "a reduction is one of drop, merge, pairs, hybrid"),
        ({"method": {"reduction": "drop", "align": {"scan": "hold"}}}, "a table of scan and conv"),
        ({"schedule": {"flops": 0.5, "speedup": 2}}, "one target, got flops and speedup"),
        ({"schedule": {"flops": 0.5, "batch_size": 2}}, "beside flops a schedule takes stages; got 'batch_size'"),
        ({**OLD["prunings"][0]["settings"], "taper": 1}, "0.1.0 has no taper"),
        ({**OLD["prunings"][0]["settings"], "reduction": "x"}, "unknown reduction 'x' of skimba 0.1.0"),
    ],
)
def test_bad_plain_data_is_refused(plain, says):
    with pytest.raises(ValueError, match=says):
        read_settings(plain)


@pytest.mark.parametrize("old", OLD["prunings"], ids=lambda old: f"{old['model']}-{old['settings']['reduction']}")
def test_prunings_of_0_1_give_the_same_logits(old):
    model = skimba.create_model(old["model"], pretrained=True).eval()
    pruned = skimba.prune(model, **read_settings(old["settings"])).eval()
    with torch.inference_mode():
        logits = pruned(embedded_test_images()[:2].normalised())
    torch.testing.assert_close(logits, torch.tensor(old["logits"]), rtol=0, atol=2e-4)
    assert {str(block): share for block, share in pruned.reducer.schedule.items()} == old["settings"]["keep"]


def test_a_model_that_0_1_saved_is_loaded_pruned(tmp_path):
    shutil.copy(str(resources.files("skimba") / "assets" / "vim_micro.safetensors"), tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(json.dumps(OLD["saved"]))
    reducer = skimba.load_model(tmp_path / "m.safetensors").reducer
    assert isinstance(reducer, Pruner)
    assert reducer.method == METHODS["top"]
    assert reducer.schedule == {2: 0.7, 5: 0.6}


TABLES = [
    *((Drop, "score", SCORE), (Drop, "selection", SELECTION), (Merge, "score", SCORE), (Merge, "owner", OWNER)),
    *((Pairs, "likeness", LIKENESS), (Pairs, "walk", WALK)),
]
BY_VALUE = [(kind, field, name, table[name]) for kind, field, table in TABLES for name in table]


@pytest.mark.parametrize(("kind", "field", "name", "value"), BY_VALUE, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_part_by_value_is_the_part_by_name(model, images, kind, field, name, value):
    given, named = (Method(kind(**{field: part}), HOLD) for part in (value, name))
    assert given == named
    with torch.no_grad():
        assert torch.equal(skimba.prune(model, given, {2: 0.5})(images), skimba.prune(model, named, {2: 0.5})(images))


def test_alignments_and_counts_by_value_are_those_by_name(model, images):
    for name, value in ALIGNMENTS.items():
        assert Method(align=value) == Method(align=name)
        assert Method(align=Alignment(value.scan, value.conv)) == Method(align=name)
    for name, value in COUNTS.items():
        assert Method(counts=value) == Method(counts=name)


SCAN_COPIES = {
    "none": lambda order, delta, bias: {},
    "decay": lambda order, delta, bias: {} if order.missing is None else {"missing": order.missing},
    "hold": lambda order, delta, bias: {} if order.size is None else {"hold": order.size},
    "hold_first_order": lambda order, delta, bias: {} if order.size is None else {"step": order.size},
}
CONV_COPIES = {
    "condensed": lambda layout: None,
    "zeros": lambda layout: layout.position_source,
    "held": lambda layout: layout.owner_source,
}


@pytest.mark.parametrize("model", ["vim", "plain_mamba"], indirect=True)
@pytest.mark.parametrize(
    ("scan", "conv"), [*zip(SCAN_COPIES, [*CONV_COPIES, "held"], strict=True), ("none", "held"), ("decay", "condensed")]
)
def test_a_function_as_a_rule_of_an_alignment_is_the_rule_by_name(model, images, scan, conv):
    named, own = Alignment(scan, conv), Alignment(SCAN_COPIES[scan], CONV_COPIES[conv])
    assert (own.scan.by_owner, own.conv.by_owner) == (named.scan.by_owner, named.conv.by_owner)
    for reduction in (Drop(), Pairs()):
        with torch.no_grad():
            got, expected = (skimba.prune(model, Method(reduction, align), {2: 0.5})(images) for align in (own, named))
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("kind", "table", "field"), [(ScanRule, SCAN_RULES, "time"), (ConvRule, CONV_RULES, "source")])
def test_whether_a_rule_goes_by_owners_is_found(kind, table, field):
    for name, rule in table.items():
        assert kind(getattr(rule, field)) == rule, name
    with pytest.raises(ValueError, match=r"failed \(AttributeError: .* may read .*got 'grid'\): say it, with ScanRule"):
        kind(lambda place, *_: place.grid)
    assert kind(lambda place, *_: place.grid, by_owner=True).by_owner


def test_a_reduction_may_be_a_plain_function(model, images):
    def last(tokens, stage):
        return Drop(lambda tokens, count, seed: tokens.position.float())(tokens, stage)

    with torch.no_grad():
        own = skimba.prune(model, Method(last, DECAY), {1: 0.5, 3: 8})(images)
        named = skimba.prune(model, Method(Drop(lambda t, count, seed: t.position.float()), DECAY), {1: 0.5, 3: 8})(
            images
        )
    assert torch.equal(own, named)


def left(schedule, first, has_extra=True, depth=24):
    return list(counts_left(read_schedule(schedule, depth), first, has_extra).values())


def test_counts_of_published_schedules():
    assert left({5: 0.8, 10: 0.8, 15: 0.8}, 196) == [156, 124, 100]
    assert left(dict.fromkeys(range(2, 24, 2), Remove(11)), 196) == [185, 174, 163, 152, 141, 130, 119, 108, 97, 86, 75]
    assert left({6: OfFirst(0.7), 12: OfFirst(0.7**2), 18: OfFirst(0.7**3)}, 196) == [137, 96, 67], (
        "DyVM, without the class"
    )
    assert left({2: 101, "4": Count(1)}, 196) == [101, 1]
    assert left({2: Count(500), 3: Remove(150), 4: OfFirst(1.0)}, 196) == [196, 98, 98], "no more than half go at once"
    assert left({2: 1, 3: 1.0}, 196) == [196, 196]


def test_odd_counts_are_kept(model, images):
    lengths = []
    pruned = skimba.prune(model, "r_meeto", {1: Remove(5), 3: 21})
    for block in pruned.layers:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].layout.image_count))
    with torch.no_grad():
        assert pruned(images).shape == (3, 5)
    assert lengths == [48, 43, 43, 21]
    assert pruned.reducer.counts == (48, 43, 21)
