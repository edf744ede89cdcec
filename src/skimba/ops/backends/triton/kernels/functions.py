"""Elementary functions in Triton's language, on float32.

They use nothing but ``exp2``, which is one instruction on a GPU, and arithmetic: Triton's interpreter has them too, and none
loses digits where its result is small.
"""

import triton
import triton.language as tl

LOG2E, LN2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def only_if(allowed, x):
    """NaN in place of what is not allowed: to refuse it on the host would mean to wait for the GPU in every call."""
    return tl.where(allowed, x, float("nan"))


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2E)


@triton.jit
def sigmoid(x):
    y = exp(-tl.abs(x))  # never overflows
    return tl.where(x >= 0, 1.0, y) / (1.0 + y)


@triton.jit
def softplus(x):
    """``max(x, 0) + log(1 + y)`` with ``y = exp(-|x|)``; the logarithm is ``2 artanh(y / (2 + y))``, by its series."""
    y = exp(-tl.abs(x))
    s = y / (2.0 + y)
    q = s * s  # <= 1/9
    series = 1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15)))))))
    return tl.maximum(x, 0.0) + 2 * s * series


@triton.jit
def silu_slope(x, sigmoid_of_x):
    return sigmoid_of_x * (1 + x * (1 - sigmoid_of_x))


@triton.jit
def expm1_ratio(x, exp_of_x):
    """``expm1(x) / x``, 1 at 0; near 0 by its series."""
    series = 1 + x * (1 / 9) * (1 + x * (1 / 10))
    for divisor in tl.static_range(8, 1, -1):
        series = 1 + x * (1 / divisor) * series
    near = tl.abs(x) < 1
    return tl.where(near, series, (exp_of_x - 1) / tl.where(near, 1.0, x))


@triton.jit
def log_slope(x, exp_of_x):
    """The derivative of ``log(expm1(x) / x)``; where its two parts would cancel, by its series."""
    q = x * x
    series = 0.5 + x * (1 / 12 + q * (-1 / 720 + q * (1 / 30240 - q * (1 / 1209600))))
    near = q < 1
    return tl.where(near, series, exp_of_x / tl.where(near, 1.0, exp_of_x - 1) - 1 / tl.where(near, 1.0, x))


@triton.jit
def held_sum(x, held):
    """``1 + a + … + a^(held-1)`` with ``a = exp2(x)``, between whole numbers too. See ``reference.held_sum``."""
    y = held * x
    return held * expm1_ratio(y * LN2, tl.exp2(y)) / expm1_ratio(x * LN2, tl.exp2(x))


@triton.jit
def held_slopes(x, held):
    """:func:`held_sum` and its derivatives by the natural logarithm of ``a`` and by ``held``."""
    exp_of_x, exp_of_y = tl.exp2(x), tl.exp2(held * x)
    x *= LN2
    y = held * x
    ratio = expm1_ratio(x, exp_of_x)
    total = held * expm1_ratio(y, exp_of_y) / ratio
    return total, total * (held * log_slope(y, exp_of_y) - log_slope(x, exp_of_x)), exp_of_y / ratio
