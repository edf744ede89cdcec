"""Inputs of a scan, and how two results are compared."""

import torch
from torch import Tensor

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "gap", "step", "hold", "missing", "order")

COUNTS = ("missing", "order")  # no gradients flow to these


def scan_inputs(
    length: int = 63,
    channels: int = 24,
    states: int = 16,
    batch: int = 2,
    without: tuple[str, ...] = (),
    gap_per_channel: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """u and z are halves of one tensor, B and C slices of another, as in the models."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    u, z = randn(batch, length, 2 * channels).chunk(2, dim=-1)
    _, B, C = randn(batch, length, 3 + 2 * states).split([3, states, states], dim=-1)
    gap_shape = (batch, length, channels) if gap_per_channel else (batch, length)
    inputs = {
        "u": u,
        "delta": randn(batch, length, channels),
        "A": -torch.exp(randn(channels, states)),
        "B": B,
        "C": C,
        "D": randn(channels),
        "z": z,
        "delta_bias": randn(channels) - 1,
        "gap": torch.rand(gap_shape, generator=g) * (torch.rand(gap_shape, generator=g) > 0.5),
        "step": torch.rand(batch, length, generator=g) * 3,
        "missing": torch.randint(0, 4, (batch, length), generator=g).float(),
        "order": torch.rand(batch, length, generator=g).argsort(1).int(),
        "hold": torch.randint(0, 40, (batch, length), generator=g) / 2,
    }
    return {name: x for name, x in inputs.items() if name not in without}


def with_gradients(function, inputs: dict[str, Tensor], **options) -> dict[str, Tensor]:
    """The output and the gradient of every input but counts, for a fixed random gradient of the output."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items() if name not in COUNTS}
    y = function(**leaves, **{name: x for name, x in inputs.items() if name in COUNTS}, **options)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).to(y.dtype)
    grads = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    return {"y": y.detach(), **{f"grad_{name}": g for name, g in zip(leaves, grads, strict=True)}}


def relative_error(got: Tensor, expected: Tensor, least: float = 1e-30) -> float:
    """The largest difference against the largest expected value, or against ``least`` where that is larger."""
    assert got.shape == expected.shape
    difference = (got.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp_min(least))


def double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
