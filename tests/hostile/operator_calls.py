"""Random calls of the operators: every option, shape, stride, dtype, instruction set and number of threads; some are wrong.

``python -m tests.hostile.operator_calls --calls 100000`` runs many; see README.md for sanitizers.
"""

import argparse
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skimba.ops import (
    add_rms_norm,
    causal_conv1d,
    default_backend,
    depthwise_conv2d,
    native,
    sample_maps,
    selective_scan,
)

REFUSALS = (ValueError, TypeError, IndexError, RuntimeError)
INFINITE = float("inf")
INDICES = ("order", "source")
NOT_DIFFERENTIABLE = ("missing", "locations", *INDICES)  # between cells the slope jumps, where rounding decides


class Call(NamedTuple):
    """``function(**inputs, **flags)``; ``wrong`` says what is wrong with it, if anything."""

    function: Callable[..., Any]
    inputs: dict[str, Any]
    flags: dict[str, Any]
    wrong: str | None


class Chooser:
    """What is random about a call, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def size(self, most: int) -> int:
        """1 … most, small ones and multiples of vector lengths more often."""
        size = round(most ** self.random.random())
        return min(most, self.random.choice((size, size, size, 4, 8, 15, 16, 17, 32)))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.torch)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.torch)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.torch)

    def strided(self, x: Tensor) -> Tensor:
        """The same values, elsewhere in memory: transposed, a slice of something wider, every second row, or as they are."""
        kind = self.random.choice(("as it is", "as it is", "transposed", "slice", "steps", "offset"))
        if kind == "transposed" and x.dim() > 1:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if kind == "slice" and x.numel():
            wide = torch.full(
                (*x.shape[:-1], x.shape[-1] + 3), float("nan") if x.is_floating_point() else -7, dtype=x.dtype
            )
            wide[..., 2:-1] = x
            return wide[..., 2:-1]
        if kind == "steps" and x.numel():
            return x.repeat_interleave(2, dim=-1)[..., ::2]
        if kind == "offset":
            return torch.cat([x.flatten()[:0], x.new_zeros(1), x.flatten()])[1:].view(x.shape)
        return x


def a_scan(choose: Chooser) -> Call:
    b, length, e, n = choose.random.randint(0, 3), choose.size(140), choose.size(40), choose.size(36)
    times = (b, length, e) if choose.chance(0.3) else (b, length)
    hold = choose.random.choice(("ones", "whole", "any", "large", "zero or one"))
    inputs = {
        "u": choose.randn(b, length, e),
        "delta": choose.randn(b, length, e) * choose.random.choice((1, 1, 1, 5)) - choose.random.choice((0, 0, 3)),
        "A": -torch.exp(choose.randn(e, n)),
        "B": choose.randn(b, length, n),
        "C": choose.randn(b, length, n),
        "D": choose.randn(e),
        "z": choose.randn(b, length, e),
        "delta_bias": choose.randn(e) - 1,
        "gap": choose.uniform(*times) * (choose.uniform(*times) > 0.5),
        "step": choose.uniform(b, length) * 2,
        "hold": {
            "ones": torch.ones(b, length),
            "whole": choose.integers(0, 20, b, length).float(),
            "any": choose.uniform(b, length) * 4,
            "large": choose.integers(1, 300, b, length).float(),
            "zero or one": choose.integers(0, 2, b, length).float(),
        }[hold],
        "missing": choose.integers(0, 4, b, length).float(),
        "order": choose.uniform(b, length).argsort(1).int()
        if choose.chance(0.7)
        else choose.uniform(length).argsort(0).int(),
    }
    if choose.chance(0.1):
        inputs["gap"] = torch.where(choose.uniform(*times) < 0.1, INFINITE, inputs["gap"])
    for name in ("D", "z", "delta_bias", "gap", "step", "hold", "missing", "order"):
        if choose.chance(0.5):
            inputs[name] = None
    log_A = choose.chance(0.5)
    if log_A:
        inputs["A"] = (-inputs["A"]).log()
    narrow(choose, inputs, (), (), ("u", "delta", "B", "C", "z"), ("u", "z"), ("B", "gap"), ("A", "hold", "D"))
    return Call(selective_scan, inputs, {"reverse": choose.chance(0.5), "log_A": log_A}, None)


def a_convolution(choose: Chooser) -> Call:
    b, e, shown = choose.random.randint(0, 3), choose.size(40), choose.chance(0.5)
    grid = (choose.size(14), choose.size(14)) if choose.chance(0.5) else (choose.size(140),)
    taps = tuple(choose.random.choice((1, 3, 5, 7, 9)) for _ in grid)
    if len(grid) == 1:
        taps = (choose.random.randint(1, 9),)
    length = choose.size(100)
    inputs: dict[str, Any] = {
        "x": choose.randn(b, length, e) if shown else choose.randn(b, *grid, e),
        "weight": choose.randn(e, *taps),
        "bias": choose.randn(e),
        "source": None,
    }
    if shown:
        once = torch.full((b, *grid), -1).flatten(1)
        some = choose.uniform(*once.shape).argsort(1)[:, :length]
        once.scatter_(1, some, torch.arange(some.shape[1]).expand_as(some))
        many = choose.integers(-1, length, b, *grid)
        inputs["source"] = (many if choose.chance(0.5) else once.view(b, *grid)).int()
    narrow(choose, inputs, (), (), ("x",), ("weight",), ("x", "weight", "bias"))
    if len(grid) == 1:
        return Call(causal_conv1d, inputs, {"reverse": choose.chance(0.5)}, None)
    return Call(depthwise_conv2d, inputs, {}, None)


def a_norm(choose: Chooser) -> Call:
    b, length, d = choose.random.randint(0, 3), choose.size(60), choose.size(140)
    residual = choose.randn(b, length, d) if choose.chance(0.7) else None
    inputs = {"x": choose.randn(b, length, d), "residual": residual, "weight": choose.randn(d)}
    narrow(choose, inputs, (), ("x",), ("x", "weight"), ("residual",))
    return Call(add_rms_norm, inputs, {"eps": choose.random.choice((1e-5, 1e-2))}, None)


def a_sampling(choose: Chooser) -> Call:
    b, queries, heads, channels = choose.random.randint(0, 3), choose.size(30), choose.size(5), choose.size(40)
    grids = [(choose.size(7), choose.size(7)) for _ in range(choose.random.randint(1, 3))]
    places = (b, queries, heads, len(grids), choose.random.randint(1, 5))
    inputs = {
        "value": choose.randn(b, sum(height * width for height, width in grids), heads, channels),
        "locations": choose.uniform(*places, 2) * 2 - 0.5,
        "weights": choose.randn(*places),
    }
    narrow(choose, inputs, (), (), ("value",), ("weights",), ("value", "weights"))
    return Call(sample_maps, inputs, {"grids": grids}, None)


def narrow(choose: Chooser, inputs: dict[str, Any], *which: tuple[str, ...]) -> None:
    """Some of the inputs in bfloat16, one of ``which``; all of them somewhere else in memory."""
    names = choose.random.choice(which)
    for name, x in inputs.items():
        if x is not None:
            inputs[name] = choose.strided(x.bfloat16() if name in names else x)


def spoil(choose: Chooser, call: Call) -> Call:
    """The call with one thing wrong that must be refused."""
    inputs = dict(call.inputs)
    name = choose.random.choice([name for name, x in inputs.items() if x is not None])
    x = inputs[name]
    kinds = ["dtype", "rank", "longer", "no tensor"]
    kinds += ["missing"] * (
        name in ("u", "delta", "A", "B", "C", "x", "weight", "bias", "value", "locations", "weights")
    )
    if x.numel():
        kinds += ["negative", "nan"] * (name in ("gap", "step", "hold", "missing"))
        kinds += ["index"] * (2 * (name in INDICES))
    kind = choose.random.choice(kinds)
    if kind == "missing":
        inputs[name] = None
    elif kind == "no tensor":
        inputs[name] = choose.random.choice((1, 2.5, "x", [1.0]))
    elif kind == "dtype":
        inputs[name] = x.to(choose.random.choice((torch.int64, torch.bool, torch.complex64)))
    elif kind == "rank":
        inputs[name] = x[None, None] if choose.chance(0.5) or not x.numel() else x.flatten()[0]
    elif kind == "longer":
        free = name in ("weight", "source", "value")  # any number of taps, positions and channels will do
        inputs[name] = torch.cat([x, x.new_zeros(1, *x.shape[1:])]) if free else torch.cat([x, x[..., :1]], dim=-1)
    else:
        place = choose.random.randrange(x.numel())
        worse = {"negative": -1e-3, "nan": float("nan"), "index": choose.random.choice((-2, 2**20, -(2**31)))}[kind]
        inputs[name] = x.clone(memory_format=torch.contiguous_format)
        inputs[name].view(-1)[place] = worse
    return call._replace(inputs=inputs, wrong=f"{name}: {kind}")


def random_call(seed: int) -> Call:
    choose = Chooser(seed)
    call = choose.random.choice((a_scan, a_scan, a_convolution, a_norm, a_sampling))(choose)
    return spoil(choose, call) if choose.chance(0.15) else call


def results(call: Call, seed: int, wide: bool = False) -> dict[str, Tensor]:
    """Outputs and gradients; with ``wide`` those of the reference in float64. The same inputs need gradients in both."""
    choose = Chooser(seed + 1)
    inputs = dict(call.inputs)
    leaves = {}
    for name, x in inputs.items():
        if isinstance(x, Tensor) and x.is_floating_point():
            inputs[name] = x.detach().double() if wide else x.detach()
            if name not in NOT_DIFFERENTIABLE and choose.chance(0.7):
                leaves[name] = inputs[name].requires_grad_()
    with default_backend("reference" if wide else "auto"):
        outputs = call.function(**inputs, **call.flags)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    found = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    weights = [choose.randn(*y.shape).bfloat16().to(y.dtype) for y in outputs]
    used = [(y, w) for y, w in zip(outputs, weights, strict=True) if choose.chance(0.8) and y.requires_grad]
    if used:
        ys, ws = zip(*used, strict=True)
        grads = torch.autograd.grad(ys, list(leaves.values()), ws, materialize_grads=True, allow_unused=True)
        found |= {f"gradient of {name}": g for name, g in zip(leaves, grads, strict=True)}
    return found


def difference(got: Tensor, expected: Tensor, allowed: float) -> float:
    """The largest difference against the largest value, in units of what is allowed (or of bfloat16's rounding)."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if not got.numel():
        return 0.0
    allowed = 1e-2 if got.dtype == torch.bfloat16 else allowed
    scale = expected.abs().max().clamp_min(1e-3)  # inputs are about 1; below, the rounding of what cancels
    return float((got.double() - expected).abs().max() / scale / allowed)


def run(seed: int, compare: bool = True) -> str:
    """Make one call and judge it: what is wrong must be refused, all else be equal to the reference.

    Returns:
        ``"refused"``, ``"equal"`` or, without ``compare``, ``"ran"``.

    Raises:
        AssertionError: with the call in words.
    """
    call = random_call(seed)
    choose = Chooser(seed + 2)
    torch.set_num_threads(choose.random.randint(1, 3))
    refusal, got = None, {}
    with native.use(choose.random.choice(native.variants())):
        try:
            got = results(call, seed)
        except REFUSALS as error:
            refusal = error
    judged = f"seed {seed}, wrong: {call.wrong}, refused: {refusal!r}\n{in_words(call)}"
    assert (call.wrong is None) == (refusal is None), judged
    if refusal:
        return "refused"
    if not compare:
        return "ran"
    for name, expected in results(call, seed, wide=True).items():
        error = difference(got[name], expected, 2e-5 if name.startswith("output") else 2e-4)
        assert error <= 1, (
            f"seed {seed}: {name} is {error:.1f} times further from the reference than allowed\n{in_words(call)}"
        )
    return "equal"


def in_words(call: Call) -> str:
    described = [
        f"{name}={x.dtype} {tuple(x.shape)} strides {x.stride()}" if isinstance(x, Tensor) else f"{name}={x!r}"
        for name, x in call.inputs.items()
    ]
    return f"{call.function.__name__}({', '.join(described)}, {call.flags})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first call")
    parser.add_argument("--compare", type=int, default=1, help="compare every so many calls with the reference")
    options = parser.parse_args()
    counts: dict[str, int] = {}
    failures, begun = 0, time.monotonic()
    for seed in range(options.first, options.first + options.calls):
        try:
            outcome = run(seed, compare=seed % options.compare == 0)
        except AssertionError as error:
            failures += 1
            outcome = "failed"
            print(error, flush=True)
        counts[outcome] = counts.get(outcome, 0) + 1
    print(f"{options.calls} calls in {time.monotonic() - begun:.0f} s: {counts}")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
