"""The operators in torch's dispatcher, so that compile, export and FLOP counting work by themselves.

Each has a schema, a fake kernel and a gradient, and its gradient is an operator of its own; the product in 8-bit integers refuses
one. What runs is registered by the backends (``backends/``) under torch's dispatch keys: the device of the tensors chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from skimba.ops.inputs import CAUSAL, GRID, INT8, NORM, SAMPLE, SCAN, SampleInputs
from skimba.ops.operands import Signature

# The low-level interface: the wrapper of `torch.library.custom_op` costs tens of microseconds a call.
LIBRARY: Any = torch.library.Library("skimba", "FRAGMENT")
Kernels = tuple[Callable[..., Any], ...]  # what runs an operator and, if it has one, its gradient
INSTEAD = "skimba.ops.default_backend('reference') runs operations that torch differentiates"


@dataclass(frozen=True)
class Operator:
    """An operator and that of its gradient, None if it has none, as torch calls them."""

    name: str
    signature: Signature
    forward: Any
    backward: Any


def call(operator: Any, *arguments: Any) -> Any:
    """``operator(*arguments)``, past the autograd layer where nothing needs it: that layer is Python and not free.

    Raises:
        RuntimeError: in forward-mode differentiation, which the operators do not have and torch would take for zero.
    """
    if torch.compiler.is_compiling():
        return operator(*arguments)
    if forward_ad._current_level >= 0:
        for x in arguments:
            if isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None:
                raise RuntimeError(f"{operator} has no forward-mode derivative; {INSTEAD}")
    if torch.is_grad_enabled():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def implement(name: str, key: str, forward: Callable[..., Any], backward: Callable[..., Any] | None = None) -> None:
    """Register what runs an operator and its gradient under a dispatch key (``CPU``, ``CUDA`` …)."""
    LIBRARY.impl(name, forward, key)
    if backward is not None:
        LIBRARY.impl(f"{name}_backward", backward, key)


def hand_back(
    grad: Tensor, grads: Sequence[Tensor | None], inputs: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    """What a gradient's kernel returns: in the dtype of what they belong to; an empty tensor for each that is not wanted."""
    found = zip(grads, inputs, wanted, strict=True)
    return tuple([g.to(x.dtype) if want and g is not None else grad.new_empty(0) for g, x, want in found])


def _define(name: str, schema: str, fake: Callable[..., Any]) -> Any:
    LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.needs_fixed_stride_order,))
    torch.library.register_fake(f"skimba::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.skimba, name).default


def _differentiate(name: str, gradients: Callable[..., Any], keep: Callable[..., None]) -> None:
    """Gradients once; a second derivative is refused, which torch would take for zero."""

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"skimba.{name} has no second derivative; {INSTEAD}")

    torch.library.register_autograd(f"skimba::{name}", gradients, setup_context=keep, lib=LIBRARY)
    torch.library.register_autograd(f"skimba::{name}_backward", refuse, lib=LIBRARY)


def _shape_of_first(inputs: Any) -> tuple[int, ...]:
    return tuple(inputs[0].shape)


def _shape_read(s: SampleInputs) -> tuple[int, ...]:
    (batch, queries), (heads, channels) = s.weights.shape[:2], s.value.shape[2:]
    return batch, queries, heads * channels


def _operator(name: str, signature: Signature, shape: Callable[[Any], tuple[int, ...]] = _shape_of_first) -> Operator:
    """One whose output has the dtype of its first operand and a ``shape`` found from its inputs. Its gradient takes that of the
    output, the same inputs, and for each differentiable operand whether its gradient is wanted; it gives an empty tensor for each
    that is not."""
    places, tensors = signature.differentiable, len(signature.operands)

    def fake(x: Tensor, *rest: Any) -> Tensor:
        return x.new_empty(shape(signature.inputs(x, *rest)))

    def fake_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *inputs, wanted = arguments
        like = [inputs[i] if want else None for i, want in zip(places, wanted, strict=True)]
        return tuple([grad.new_empty(0) if x is None else x.new_empty(x.shape) for x in like])

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.flags = inputs[tensors:]

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [ctx.needs_input_grad[i] for i in places]
        grads = dict(zip(places, call(backward, grad, *ctx.saved_tensors, *ctx.flags, wanted), strict=True))
        return tuple([grads.get(i) if needed else None for i, needed in enumerate(ctx.needs_input_grad)])

    outputs = ", ".join(["Tensor"] * len(places))
    forward = _define(name, f"({signature.schema}) -> Tensor", fake)
    backward = _define(
        f"{name}_backward", f"(Tensor grad, {signature.schema}, bool[] wanted) -> ({outputs})", fake_backward
    )
    _differentiate(name, gradients, keep)
    return Operator(name, signature, forward, backward)


def _norm_operator() -> Operator:
    """Two outputs, the norm and the sum; its gradient is found from the sum, which the model keeps anyway."""

    def fake(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        return x.new_empty(x.shape), x.new_empty(x.shape, dtype=wide)

    def fake_backward(
        grad: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        return total.new_empty(total.shape), weight.new_empty(weight.shape)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, residual, weight, ctx.eps = inputs
        ctx.save_for_backward(output[1], weight)
        ctx.dtype, ctx.residual_dtype = x.dtype, None if residual is None else residual.dtype

    def gradients(ctx: Any, grad: Tensor, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        grad, grad_weight = call(backward, grad, grad_total, total, weight, ctx.eps)
        to_residual = None if ctx.residual_dtype is None else grad.to(ctx.residual_dtype)
        return grad.to(ctx.dtype), to_residual, grad_weight, None

    name = "add_rms_norm"
    forward = _define(name, f"({NORM.schema}) -> (Tensor, Tensor)", fake)
    backward = _define(
        f"{name}_backward",
        "(Tensor grad, Tensor? grad_total, Tensor total, Tensor weight, float eps) -> (Tensor, Tensor)",
        fake_backward,
    )
    _differentiate(name, gradients, keep)
    return Operator(name, NORM, forward, backward)


def _int8_operator() -> Operator:
    """For inference alone."""

    def fake(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        return x.new_empty((*x.shape[:-1], weight.shape[0]))

    def refuse(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError("skimba.int8_linear has no gradient: train the model before skimba.quantize")

    name = "int8_linear"
    forward = _define(name, f"({INT8.schema}) -> Tensor", fake)
    torch.library.register_autograd(f"skimba::{name}", refuse, lib=LIBRARY)
    return Operator(name, INT8, forward, None)


SELECTIVE_SCAN = _operator("selective_scan", SCAN)
CAUSAL_CONV1D = _operator("causal_conv1d", CAUSAL)
DEPTHWISE_CONV2D = _operator("depthwise_conv2d", GRID)
SAMPLE_MAPS = _operator("sample_maps", SAMPLE, _shape_read)
ADD_RMS_NORM = _norm_operator()
INT8_LINEAR = _int8_operator()
