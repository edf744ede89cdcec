"""The operators in torch's dispatcher: who runs them, what they refuse to differentiate, who watches them."""

import threading
from typing import Any

import pytest
import torch

from skimba.ops import (
    BACKENDS,
    add_rms_norm,
    causal_conv1d,
    default_backend,
    depthwise_conv2d,
    native,
    observe,
    selective_scan,
)
from tests.ops.scan_inputs import double, scan_inputs

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
g = torch.Generator().manual_seed(0)
CALLS: dict[str, Any] = {
    "selective_scan": (selective_scan, scan_inputs(5, 6, 4, without=("missing", "order"))),
    "causal_conv1d": (
        causal_conv1d,
        {"x": torch.randn(2, 5, 6, generator=g), "weight": torch.randn(6, 4, generator=g)},
    ),
    "depthwise_conv2d": (
        depthwise_conv2d,
        {"x": torch.randn(2, 5, 3, 6, generator=g), "weight": torch.randn(6, 3, 3, generator=g)},
    ),
    "add_rms_norm": (
        add_rms_norm,
        {
            "x": torch.randn(2, 5, 6, generator=g),
            "residual": torch.randn(2, 5, 6, generator=g),
            "weight": torch.randn(6),
        },
    ),
}
for _name in ("gap", "step", "hold"):  # away from 0, below which they are refused
    CALLS["selective_scan"][1][_name] += 0.1
for _name in ("causal_conv1d", "depthwise_conv2d"):
    CALLS[_name][1]["bias"] = torch.randn(6, generator=g)
each_operator = pytest.mark.parametrize("name", list(CALLS))


def few_steps():
    """Of a scan, with every option that has a derivative."""
    inputs = scan_inputs(3, 2, 2, batch=1, without=("missing", "order"))
    return {key: x + 0.1 if key in ("gap", "step", "hold") else x for key, x in inputs.items()}


def output(name, *values, **options):
    function, inputs = CALLS[name]
    y = function(**dict(zip(inputs, values, strict=True)), **options)
    return y[0] if isinstance(y, tuple) else y


def values(name, dtype=torch.float32):
    return tuple(x.to(dtype) for x in CALLS[name][1].values())


@each_operator
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, when jvp is first used
@pytest.mark.parametrize("grad_mode", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_mode_differentiation_is_refused(name, dtype, grad_mode):
    inputs = values(name, dtype)
    with torch.set_grad_enabled(grad_mode), pytest.raises(RuntimeError, match=rf"{name}.* no forward-mode derivative"):
        torch.func.jvp(lambda *x: output(name, *x), inputs, inputs)


@each_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivatives_are_refused(name, dtype):
    leaves = [x.clone().requires_grad_() for x in values(name, dtype)]
    (slope,) = torch.autograd.grad(output(name, *leaves).square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match=rf"{name} has no second derivative"):
        torch.autograd.grad(slope.sum(), leaves[1])


@each_operator
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_the_reference_has_all_derivatives(name):
    inputs = values(name, torch.float64)
    if name == "selective_scan":  # a second derivative by each number: few are enough
        inputs = tuple(x.double() for x in few_steps().values())
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    torch.func.jvp(lambda *x: output(name, *x, backend="reference"), inputs, inputs)
    assert torch.autograd.gradgradcheck(lambda *x: output(name, *x, backend="reference"), leaves, atol=1e-4)


@each_operator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtypes_without_kernels_run_the_reference_behind_the_operator(name, dtype):
    leaves = [x.requires_grad_() for x in values(name, dtype)]
    y, expected = output(name, *leaves), output(name, *leaves, backend="reference")
    assert "skimba" in type(y.grad_fn).__name__
    assert torch.equal(y, expected)
    grads = [torch.autograd.grad(x.float().square().sum(), leaves) for x in (y, expected)]
    for got, reference in zip(*grads, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, reference)


@each_operator
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck_where_the_reference_runs(name, monkeypatch):
    monkeypatch.undo()
    given = dict(zip(CALLS[name][1], values(name, torch.float64), strict=True))
    operator = getattr(torch.ops.skimba, name).default
    defaults = {"residual": None, "eps": 1e-5, "reverse": True, "log_A": False}
    arguments = [given.get(a.name, defaults.get(a.name)) for a in operator._schema.arguments]
    arguments = [x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(operator, tuple(arguments))


@needs_native
@each_operator
def test_gradients_have_the_dtype_of_what_they_belong_to(name):
    inputs = list(values(name))
    inputs[1] = inputs[1].bfloat16()
    leaves = [x.clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(output(name, *leaves).float().sum(), leaves)
    assert [x.dtype for x in grads] == [x.dtype for x in leaves]


@pytest.mark.parametrize("name", ["selective_scan", "causal_conv1d"])
def test_meta_tensors_give_shapes(name):
    inputs = [x.to("meta") for x in values(name)]
    assert output(name, *inputs).shape == inputs[0].shape
    assert output(name, *inputs).device.type == "meta"


def test_an_unknown_backend_is_refused():
    with (
        pytest.raises(
            ValueError, match="backend must be 'auto', 'reference', 'cpu', 'triton' or 'mamba_ssm', got 'cuda'"
        ),
        default_backend("cuda"),
    ):
        pass
    assert list(BACKENDS) == ["auto", "reference", "cpu", "triton", "mamba_ssm"]


@needs_native
def test_the_default_backend_belongs_to_its_thread():
    """Two threads that overlap: the first to leave must not leave its choice to the other."""
    inputs, found = double(scan_inputs(3, 4, 2)), {}
    entered, left = threading.Event(), threading.Event()

    def first():
        with default_backend("cpu"):
            entered.set()
            left.wait(10)

    def second():
        entered.wait(10)
        found["other thread"] = selective_scan(**inputs)  # float64: the backend 'cpu' refuses it
        with default_backend("reference"):
            left.set()
            threads[0].join(10)
        found["afterwards"] = selective_scan(**inputs)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(found) == {"other thread", "afterwards"}
    selective_scan(**inputs)


def test_observe_hands_every_call_to_the_listener():
    seen, outer = [], []
    inputs = scan_inputs(4, 6, 4)
    with observe(lambda name, given, y: outer.append(name)):
        with observe(lambda *call: seen.append(call)):
            y = selective_scan(**inputs, reverse=True)
            norm = output("add_rms_norm", *values("add_rms_norm"))
        selective_scan(**inputs, backend="reference")
    selective_scan(**inputs)
    assert [name for name, _, _ in seen] == ["selective_scan", "add_rms_norm"]
    assert outer == ["selective_scan", "add_rms_norm", "selective_scan"]
    _, given, out = seen[0]
    assert out is y
    assert given.u is inputs["u"]
    assert given.reverse
    assert seen[1][2][0] is norm


def test_a_listener_is_forgotten_when_its_context_ends_by_an_error():
    seen = []
    with pytest.raises(ZeroDivisionError), observe(lambda *call: seen.append(call)):
        1 / 0  # noqa: B018
    selective_scan(**scan_inputs(4, 6, 4))
    assert not seen


@needs_native
def test_the_compiled_module_refuses_null_pointers():
    kernels = native._native
    row, none = (torch.zeros(4).data_ptr(), 4, 4), (0, 0, 0)
    rows, flags = [row] * 4 + [none] * 5, (False, False, False, False, 1)
    address, y = torch.zeros(4).data_ptr(), torch.zeros(4)
    for absent, name in enumerate(("u", "delta", "B", "C")):
        given = tuple(none if i == absent else x for i, x in enumerate(rows))
        with pytest.raises(ValueError, match=f"{name} is not given"):
            kernels.scan((1, 1, 4, 1), flags, given, (address, 0, 0), (0, 0), y.data_ptr())
    with pytest.raises(ValueError, match="A is not given"):
        kernels.scan((1, 1, 4, 1), flags, tuple(rows), (0, 0, 0), (0, 0), y.data_ptr())
    with pytest.raises(ValueError, match="weight is not given"):
        kernels.conv((1, 1, 1, 4), (1, 1, 0, 0), (False, False, 1), (address, 4, 4, 4), (0, 0), (0, address), address)
