import pytest
import torch

from skimba.ops import add_rms_norm, native
from tests.ops.scan_inputs import double, relative_error

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")


def norm_inputs(length, width, with_residual=True):
    g = torch.Generator().manual_seed(0)
    x, residual = torch.randn(2, 2, length, width, generator=g)
    inputs = {"x": x, "residual": residual if with_residual else None, "weight": torch.randn(width, generator=g)}
    return {name: t for name, t in inputs.items() if t is not None}


def with_gradients(inputs, parts=(True, True), **options):
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.items()}
    found = add_rms_norm(**{"residual": None, **leaves}, **options)
    g = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=g)).sum() for t, part in zip(found, parts, strict=True) if part)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return [t.detach() for t in (*found, *grads)]


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize(("length", "width"), [(1, 3), (7, 5), (63, 64), (197, 130)])
def test_matches_in_values_and_gradients(length, width, with_residual, variant):
    inputs = norm_inputs(length, width, with_residual)
    with native.use(variant):
        for parts in ((True, True), (True, False), (False, True)):
            expected = with_gradients(double(inputs), parts, backend="reference")
            got = with_gradients(inputs, parts, backend="cpu")
            for a, b in zip(got, expected, strict=True):
                assert relative_error(a, b) <= 1e-5


@needs_native
def test_bfloat16_is_the_float32_norm_of_the_rounded_input():
    x, residual, weight = norm_inputs(9, 40).values()
    y, total = add_rms_norm(x.bfloat16(), residual, weight, backend="cpu")
    expected, sum_ = add_rms_norm(x.bfloat16().float(), residual, weight, backend="cpu")
    assert torch.equal(y, expected.bfloat16())
    assert torch.equal(total, sum_)


@needs_native
def test_result_does_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(with_gradients(norm_inputs(50, 70), backend="cpu"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_native
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(monkeypatch):
    monkeypatch.undo()
    x, residual, weight = (t.requires_grad_() for t in norm_inputs(4, 6).values())
    for r in (residual, None):
        torch.library.opcheck(torch.ops.skimba.add_rms_norm.default, (x, r, weight, 1e-5))


def test_bad_input_says_what_is_allowed():
    x, residual, weight = norm_inputs(4, 6).values()
    with pytest.raises(ValueError, match=r"weight must have shape \(6,\), got \(5,\)"):
        add_rms_norm(x, residual, weight[:5])
    with pytest.raises(ValueError, match="residual must have shape"):
        add_rms_norm(x, residual[:1], weight)
