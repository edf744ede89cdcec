"""Hidden attention equals what the scans compute, in every family, scan order and alignment."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import skimba
from skimba.data import embedded_test_images
from skimba.insight import channel_attention, hidden_attention, position_of_patch
from skimba.insight.watching import watch_block
from skimba.pruning import Drop, Merge, Method
from skimba.tokens import ALIGNMENTS, HOLD, Alignment
from tests.conftest import randomise, tiny_vim

METHODS = {
    "dense": None,
    "none": "condensed",
    "decay": "top",
    "decay_own": Method(Drop("clip"), align=Alignment("decay_own", "zeros")),
    "dropped": Method(Drop("clip", owner="similar"), align=HOLD),
    "order": "evit",
    **{name: Method(Merge("clip"), align=align) for name, align in ALIGNMENTS.items() if align.needs_owner},
}
PARTS = {"scan": (), "gated": ("skip", "gate"), "all": ("skip", "gate", "convolution")}
BOUND = 1e-5  # relative to the largest value


def pruned(model, name):
    return model if METHODS[name] is None else skimba.prune(model, METHODS[name], {1: 0.6, 2: 0.7})


def standing(tokens, image):
    """For each position of the full sequence the token that stands for it, or None."""
    if tokens.owner is not None:
        return tokens.owner[image].tolist()
    place = {position: token for token, position in enumerate(tokens.position[image].tolist())}
    return [place.get(position) for position in range(tokens.layout.full_length)]


def gated_outputs(run, image):
    """``(s l e)`` what the scans of a block gave, D and gate included."""
    record, length = run.tokens.scan, run.tokens.x.shape[1]
    gate = F.silu(record.z[image])
    outputs = [(call.output[image, :length], call.scan.z is None) for call in run.scans]
    return torch.stack([y * gate if ungated else y for y, ungated in outputs])


def relative(found, wanted):
    return float((found - wanted).abs().amax() / wanted.abs().amax())


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_rows_reproduce_what_the_scans_gave(model, images, name):
    model = pruned(model, name)
    run = watch_block(model, images[:2], 3)
    channels = [0, 5, 31]
    for parts in ("gated", "all"):
        found = channel_attention(model, images[:2], 3, channels, PARTS[parts])
        rows = (found.weight @ found.read[..., None])[..., 0] + found.rest
        assert relative(rows, found.output) <= BOUND
        for image in range(2):
            wanted = gated_outputs(run, image)[..., channels]
            for position, token in enumerate(standing(run.tokens, image)):
                here = rows[image, :, :, position]
                if token is None:
                    assert not here.any()
                    assert not found.weight[image, :, :, :, position].any()
                else:
                    assert float((here - wanted[:, token]).abs().amax()) <= BOUND * float(wanted.abs().amax())


@pytest.mark.parametrize("name", ["dense", "decay"])
@torch.no_grad()
def test_weights_are_those_of_the_formula(images, name):
    """``C_i exp(A (T_i - T_j)) Δ_j B_j`` in float64, for the forward scan of a Vim."""
    model = pruned(randomise(tiny_vim()), name)
    run = watch_block(model, images[:1], 3)
    s, channel = run.scans[0].scan, 7
    delta = F.softplus((s.delta[0, :, channel] + s.delta_bias[channel]).double())
    missing = torch.zeros(len(delta)) if s.missing is None else s.missing[0]
    time = (delta + missing * delta.roll(1)).cumsum(0)  # the first step has nothing missing before it
    A = -s.A[channel].double().exp()
    age = (time[:, None] - time).tril()  # (i j)
    state = torch.exp(age[..., None] * A) * (delta[:, None] * s.B[0])  # (i j n)
    alpha = (s.C[0, :, None] * state).sum(-1).tril()
    found = channel_attention(model, images[:1], 3, [channel]).weight[0, 0, 0]
    at = run.tokens.position[0]
    torch.testing.assert_close(found[at][:, at].double(), alpha, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "decay", "hold"])
def test_some_rows_are_those_of_the_whole(model, images, name):
    model, asked = pruned(model, name), [7, 0, 30]
    for parts in ((), PARTS["all"]):
        whole = hidden_attention(model, images, 3, include=parts)
        rows = hidden_attention(model, images, 3, include=parts, positions=asked)
        assert rows.positions == tuple(asked)
        torch.testing.assert_close(rows.weight, whole.weight[:, :, asked], rtol=1e-4, atol=1e-5)


def test_channels_are_combined_as_asked(model, images):
    single = channel_attention(model, images, 2, [1, 4]).weight
    both = {name: hidden_attention(model, images, 2, channels=[1, 4], combine=name) for name in ("sum", "magnitude")}
    torch.testing.assert_close(both["sum"].weight, single.sum(2))
    torch.testing.assert_close(both["magnitude"].weight, single.abs().sum(2))
    own = hidden_attention(model, images, 2, channels=[1, 4], combine=lambda x: x.amax(-1))
    torch.testing.assert_close(own.weight, single.amax(2))
    torch.testing.assert_close(both["sum"].summed, single.sum((1, 2)))


def test_maps_leave_out_extra_tokens(model, images):
    found = hidden_attention(model, images, 2, positions=[3])
    assert found.maps.shape == (3, len(found.walks), 1, 6, 8)
    assert found.summed_maps.shape == (3, 1, 6, 8)
    patch = position_of_patch(found.layout, (2, 5))
    assert position_of_patch(found.layout, 2 * 8 + 5) == patch
    assert torch.equal(found.maps[..., 2, 5], found.weight[..., patch])


def test_nothing_of_the_model_changes_and_inference_mode_is_no_matter(model, images):
    model.train()
    with torch.inference_mode():
        before = hidden_attention(model, images, 2, positions=[1])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before.weight, hidden_attention(model.eval(), images, 2, positions=[1]).weight)


def test_what_is_out_of_range_is_named(model, images):
    inner = model.layers[0].mixer.inner
    last = model.embed(images).layout.full_length - 1
    for message, call in {
        "block must be 1 … 4, got 0": lambda: hidden_attention(model, images, 0),
        "block must be 1 … 4, got 5": lambda: channel_attention(model, images, 5, [0]),
        f"positions must be 0 … {last}, got {last + 1}": lambda: hidden_attention(
            model, images, 1, positions=[last + 1]
        ),
        f"channels must be 0 … {inner - 1}, got -1": lambda: hidden_attention(model, images, 1, channels=[-1]),
        "patch must be 0 … 47, got 48": lambda: position_of_patch(model.embed(images).layout, 48),
        r"patch must be \(0 … 5, 0 … 7\), got \(6, 0\)": lambda: position_of_patch(model.embed(images).layout, (6, 0)),
        "unknown part 'D' of a scan; known: skip": lambda: hidden_attention(model, images, 1, include=["D"]),
        "unknown combine 'mean'; known: magnitude, sum": lambda: hidden_attention(model, images, 1, combine="mean"),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", ["dense", "none", "decay", "hold"])
@pytest.mark.parametrize("micro", ["vim_micro", "plain_mamba_micro"])
def test_rows_reproduce_the_scans_of_the_embedded_models(micro, name):
    model = pruned(skimba.create_model(micro, pretrained=True).eval(), name)
    found = channel_attention(model, embedded_test_images()[:1].normalised(), 5, [3, 50], PARTS["all"])
    assert relative((found.weight @ found.read[..., None])[..., 0] + found.rest, found.output) <= BOUND


VIM_SMALL = """
import resource, time, torch, skimba
from skimba.insight import hidden_attention
model, images = skimba.create_model("vim_small_patch16_224").eval(), torch.randn(1, 3, 224, 224)
start = time.perf_counter()
assert hidden_attention(model, images, 12).weight.shape == (1, 2, 197, 197)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_vim_small_at_224_pixels_takes_five_seconds_and_a_gigabyte():
    """All channels of a block, both directions; the memory is the whole process's."""
    found = subprocess.run([sys.executable, "-c", VIM_SMALL], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, found.stdout.split())
    assert seconds <= 5
    assert gigabytes <= 1
