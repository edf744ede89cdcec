"""bfloat16 as users cast to it, and what must not be cast."""

import copy

import pytest
import torch

import skimba
from skimba.data import embedded_test_images
from skimba.ops import default_backend, native

PRUNED = {"dense": None, "top": "top", "hold": "hold"}


def pruned(model, method):
    return model if method is None else skimba.prune(model, method, {2: 0.5})


def relative_error(got, expected):
    return ((got.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("method", PRUNED.values(), ids=PRUNED)
def test_a_bfloat16_model_agrees_with_float32(model, images, method):
    with torch.no_grad():
        expected = pruned(model, method)(images)
        got = pruned(copy.deepcopy(model).bfloat16(), method)(images.bfloat16())
    assert got.dtype == torch.bfloat16
    # A choice of tokens may tip over at a rounding, which changes an image's logits more than rounding itself does.
    assert relative_error(got, expected) < (0.02 if method is None else 0.2)


@pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_the_kernels_bfloat16_error_is_that_of_torchs_operators(name):
    model = skimba.create_model(name, pretrained=True).eval()
    images = embedded_test_images()[:16].normalised()
    narrow = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        expected = model(images)
        error = relative_error(narrow(images.bfloat16()), expected)
        with default_backend("reference"):
            torchs = relative_error(narrow(images.bfloat16()), expected)
    assert error < 1.25 * torchs


@pytest.mark.parametrize("method", PRUNED.values(), ids=PRUNED)
def test_autocast_infers_and_trains(model, images, method):
    model = pruned(model, method)
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(images)
        loss = got.float().square().sum()
    loss.backward()
    assert relative_error(got, expected) < (0.02 if method is None else 0.2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_bfloat16_model_trains(model, images):
    model.bfloat16()(images.bfloat16()).float().square().sum().backward()
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in model.parameters())


def test_the_recurrence_and_its_convolution_keep_their_parameters_in_float32(model):
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.bfloat16()
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert all(torch.equal(before[name], dict(model.named_parameters())[name]) for name in kept)
    kinds = ("A_log", "A_b_log", "D", "D_b", "dt_proj.bias", "dt_proj_b.bias")
    conv = ("conv1d.", "conv1d_b.", "conv2d.", *(f"conv1d_{walk}." for walk in range(4)))
    kinds += tuple(f"{kind}_{walk}" for kind in ("A_log", "D") for walk in range(4))
    kinds += tuple(f"dt_proj_{walk}.bias" for walk in range(4))
    assert kept == {n for n in before if n.endswith(tuple(f".{k}" for k in kinds)) or any(f".{c}" in n for c in conv)}
    model.double()
    assert all(p.dtype == torch.float64 for p in model.parameters())
