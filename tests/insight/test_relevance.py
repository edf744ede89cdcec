"""What speaks for a class, and what the end depends on."""

import pytest
import torch

import skimba
from skimba.data import embedded_test_images
from skimba.insight import channel_attention, relevance, rollout
from skimba.insight.relevance import brought_by
from skimba.insight.watching import watch

PATCH, SIDE = 2, 14


@pytest.mark.parametrize("method", [None, "top", "hold"])
def test_rows_of_a_rollout_are_distributions(model, images, method):
    model = model if method is None else skimba.prune(model, method, {1: 0.6})
    found = rollout(model, images[:2])
    full = model.embed(images).layout.full_length
    assert found.shape == (2, full, full)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(2), torch.ones(2, full))


def test_what_tokens_bring_is_what_the_formula_says(model, images):
    """``Σ_i r_i Σ_e g_i α_ij x_j`` over the matrices of all channels."""
    run = list(watch(model, images[:1], 2))[-1]
    inner, length = model.layers[1].mixer.inner, run.tokens.x.shape[1]
    generator = torch.Generator().manual_seed(0)
    grad, reading = torch.randn(length, inner, generator=generator), torch.rand(length, generator=generator)
    for number, call in enumerate(run.scans):
        parts = ("skip", "gate", "convolution") if call.scan.z is not None else ("skip", "convolution")
        found = channel_attention(model, images[:1], 2, range(inner), parts)
        weight, read = found.weight[0, number], found.read[0, number]  # (e i j), (e j)
        wanted = torch.einsum("i,ie,eij,ej->j", reading, grad, weight, read)
        brought = brought_by(run, number, 0, grad, reading)
        torch.testing.assert_close(brought, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_classes_are_the_predicted_ones_or_those_asked_for(model, images):
    with torch.no_grad():
        predicted = model(images).argmax(1)
    found = relevance(model, images)
    assert torch.equal(found.classes, predicted)
    assert found.map.shape == (3, 6, 8)
    assert found.map.min() >= 0
    other = relevance(model, images, (predicted + 1) % 5)
    assert not torch.allclose(other.map, found.map, rtol=1e-2)
    with pytest.raises(ValueError, match="classes must be 0 … 4, got 5"):
        relevance(model, images, [0, 5, 1])
    with pytest.raises(ValueError, match="one for each of 3 images"):
        relevance(model, images, [0])


@pytest.mark.parametrize(
    ("micro", "method"),
    [
        ("vim_micro", None),
        ("plain_mamba_micro", "hold"),
        pytest.param("vim_micro", "hold", marks=pytest.mark.slow),
        pytest.param("plain_mamba_micro", None, marks=pytest.mark.slow),
    ],
)
def test_covering_what_is_relevant_hurts_most(micro, method):
    """A quarter of the patches is covered: the relevant ones cost more of the class's probability than the others."""
    model = skimba.create_model(micro, pretrained=True).eval()
    model = model if method is None else skimba.prune(model, method, {2: 0.7, 4: 0.7})
    images = embedded_test_images()[:8].normalised()
    found = relevance(model, images)
    order = found.map.flatten(1).argsort(1, descending=True)
    count = SIDE**2 // 4

    def probability(patches):
        cover = torch.zeros(len(images), SIDE**2).scatter(1, patches, 1.0).view(-1, 1, SIDE, SIDE)
        cover = cover.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        with torch.inference_mode():
            logits = model(images * (1 - cover) + cover * images.mean((2, 3), keepdim=True))
        return float(logits.softmax(1).gather(1, found.classes[:, None]).mean())

    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(len(images), SIDE**2, generator=generator).argsort(1)
    most, random, least = (probability(p[:, :count]) for p in (order, chance, order.flip(1)))
    assert most < random
    assert most < least
