"""How alike two tokens are: which pairs merge first. A function is one entry of :data:`LIKENESS`.

Every function takes ``(tokens, a, b)`` — the tokens after a block, places ``a (b i)`` and ``b (b j)`` of some of them — and
returns ``(b i j)``, the larger the sooner they merge.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from skimba.tokens import Tokens, take

Likeness = Callable[[Tokens, Tensor, Tensor], Tensor]
WINDOW = 4  # side of a local window, in positions of the grid


def _cosine(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    unit = F.normalize(x.float(), dim=-1)
    return take(unit, a) @ take(unit, b).transpose(1, 2)


def cosine(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the residual stream."""
    return _cosine(tokens.stream, a, b)


def hidden(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of what the last mixer returned (PlainMamba: of the stream, all there is). Source: R-MeeTo (arXiv 2412.12496)."""
    return _cosine(tokens.x, a, b)


def ward(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """``-(1 - cosine) · s_a s_b / (s_a + s_b)``, s the positions owned: Ward's criterion for joining clusters (J. Am. Stat.
    Assoc. 58, 1963) with the cosine distance of the stream. Ours: large owners grow only where little is lost. Pairs on two
    sides of a class token come late: what one of them tells would reach the class token from the wrong side.
    """
    distance = 1 - cosine(tokens, a, b) + _apart_by_class(tokens, a, b)
    size = tokens.layout.size
    if size is None:
        return -distance / 2
    size_a, size_b = take(size, a)[:, :, None], take(size, b)[:, None]
    return -distance * (size_a * size_b / (size_a + size_b))


def _apart_by_class(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor | int:
    """``(b i j)`` whether the class token stands between; 0 without one."""
    if tokens.class_position is None:
        return 0
    after = tokens.position > tokens.class_position
    return (take(after, a)[:, :, None] != take(after, b)[:, None]).to(tokens.x.dtype)


def local(tokens: Tokens, a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the stream; pairs of different windows of WINDOW x WINDOW positions come after all others. In the spirit of
    STORM (arXiv 2606.19932), which reduces rows and columns of local windows."""
    window = local_window(tokens)
    apart = take(window, a)[:, :, None] != take(window, b)[:, None]
    return cosine(tokens, a, b) - 2.0 * apart


def local_window(tokens: Tokens) -> Tensor:
    """``(b l)`` number of the window of the grid in which each token sits; -1 for the class token."""
    row, column = grid_place(tokens)
    number = row // WINDOW * tokens.grid[1] + column // WINDOW
    class_position = tokens.class_position
    return number if class_position is None else number.masked_fill(tokens.position == class_position, -1)


def grid_place(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """``(b l)`` row and column of each token on the grid; what the class token's are means nothing."""
    position, class_position = tokens.position, tokens.class_position
    cell = position if class_position is None else position - (position > class_position).long()
    return cell // tokens.grid[1], cell % tokens.grid[1]


LIKENESS: dict[str, Likeness] = {"cosine": cosine, "ward": ward, "hidden": hidden, "local": local}
