"""How alike two tokens are: which pairs merge first. A function is one entry of :data:`LIKENESS`.

Every function takes ``(tokens, a, b)`` — the tokens after a block, places ``a (b i)`` of some of them, and ``b (b j)`` of others
or ``b (b i j)``, for each of ``a`` its own — and returns ``(b i j)``, the larger the sooner they merge.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.tokens import Tokens, take

Likeness = Callable[[Tokens, Tensor, Tensor], Tensor]
WINDOW = 4  # side of a local window, in positions of the grid
APART_COST = 1.0  # chosen on 600 training images of Fashion-MNIST and 500 fashion scenes among 0, 0.03, 0.1, 0.3, 1, 2


def _cosine(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    unit = F.normalize(x.float(), dim=-1)
    if b.dim() == 2:
        return take(unit, a) @ take(unit, b).transpose(1, 2)
    return (opposite(unit, b) @ take(unit, a)[..., None]).squeeze(-1)


def opposite(x: Tensor, b: Tensor) -> Tensor:
    """``x (b l ...)`` of the tokens ``b (b j)`` or ``(b i j)``, as it stands beside that of ``a (b i)``: ``(b 1 j ...)`` or
    ``(b i j ...)``."""
    return take(x, b)[:, None] if b.dim() == 2 else take(x, b.flatten(1)).unflatten(1, b.shape[1:])


def cosine(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the residual stream."""
    return _cosine(tokens.stream, a, b)


def hidden(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of what the last mixer returned (PlainMamba: of the stream, all there is). Source: R-MeeTo (arXiv 2412.12496)."""
    return _cosine(tokens.x, a, b)


def ward(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """``-(1 - cosine) · s_a s_b / (s_a + s_b)``, s the positions owned: Ward's criterion for joining clusters (J. Am. Stat.
    Assoc. 58, 1963) with the cosine distance of the stream. Ours: large owners grow only where little is lost. Pairs on two
    sides of a class token come late: what one of them tells would reach the class token from the wrong side; of several extra
    tokens, the share of those that stand between counts.
    """
    return _by_size(tokens, a, b, 1 - cosine(tokens, a, b) + _share_between(tokens, a, b))


def ward_near(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """As :func:`ward`, where the distance grows by APART_COST for each side of the grid that lies between. Ours: an owner that
    takes over positions far away moves what they said to another place of every scan."""
    apart = sum(
        (take(place, a)[:, :, None] - opposite(place, b)).abs() / side
        for place, side in zip(grid_place(tokens), tokens.grid, strict=True)
    )
    return _by_size(tokens, a, b, 1 - cosine(tokens, a, b) + _share_between(tokens, a, b) + APART_COST * apart)


def _by_size(tokens: Tokens, a: Tensor, b: Tensor, distance: Tensor) -> Tensor:
    """``-distance · s_a s_b / (s_a + s_b)``."""
    size = tokens.layout.size
    if size is None:
        return -distance / 2
    size_a, size_b = take(size, a)[:, :, None], opposite(size, b)
    return -distance * (size_a * size_b / (size_a + size_b))


def _share_between(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor | int:
    """``(b i j)`` the share of the extra tokens that stand between; 0 without any."""
    if not (count := len(tokens.layout.extras)):
        return 0
    before = tokens.extras_before
    return (take(before, a)[:, :, None] - opposite(before, b)).abs().to(tokens.x.dtype) / count


def local(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the stream; pairs of different windows of WINDOW x WINDOW positions come after all others. In the spirit of
    STORM (arXiv 2606.19932), which reduces rows and columns of local windows."""
    window = local_window(tokens)
    apart = take(window, a)[:, :, None] != opposite(window, b)
    return cosine(tokens, a, b) - 2.0 * apart


def local_window(tokens: Tokens) -> Tensor:
    """``(b l)`` number of the window of the grid (of its frame) in which each token sits; -1 for extra tokens."""
    *_, row, column = grid_place(tokens)
    height, width = tokens.grid[-2:]
    number = row // WINDOW * width + column // WINDOW + frame_number(tokens) * height * width
    return number.masked_fill(tokens.is_extra, -1)


def frame_number(tokens: Tokens) -> Tensor:
    """``(b l)`` the frame of each token, 0 in a picture; of extra tokens it means nothing."""
    *frame, row, _ = grid_place(tokens)
    return frame[0] if frame else torch.zeros_like(row)


def grid_place(tokens: Tokens) -> tuple[Tensor, ...]:
    """``(b l)`` along each axis of the grid the place of each token (row and column); of extra tokens it means nothing."""
    rest = tokens.position - tokens.extras_before if tokens.layout.extras else tokens.position
    places: list[Tensor] = []
    for size in reversed(tokens.grid[1:]):
        places.append(rest % size)
        rest = rest // size
    return (rest, *reversed(places))


LIKENESS: dict[str, Likeness] = {
    "cosine": cosine,
    "ward": ward,
    "ward_near": ward_near,
    "hidden": hidden,
    "local": local,
}
