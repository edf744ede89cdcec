"""From the tokens after the last block to the one vector that a head reads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from skimba.layers.alignment import pool
from skimba.tokens import Tokens, take

Norm = Callable[[Tensor], Tensor]  # the model's last one, on ``(... d)``


def class_token(tokens: Tokens, norm: Norm) -> Tensor:
    """``(b d)`` the class token."""
    return norm(take(tokens.stream, tokens.extra_places)[:, 0])


def mean(tokens: Tokens, norm: Norm) -> Tensor:
    """``(b d)`` the mean over the image positions: where the alignment goes by owners, a token counts for all that it owns."""
    layout, x = tokens.layout, norm(tokens.stream)
    if not layout.extras:
        return pool(layout, x)
    image = take(x, tokens.image_places)
    if layout.size is None or not layout.alignment.scan.by_owner:
        return image.mean(1)
    size = take(layout.size, tokens.image_places)
    weight = size / size.sum(1, keepdim=True)
    return (image * weight[..., None].to(x.dtype)).sum(1)


def largest(tokens: Tokens, norm: Norm) -> Tensor:
    """``(b d)`` the largest value of each channel over the image tokens."""
    return take(norm(tokens.stream), tokens.image_places).amax(1)


def all_tokens(tokens: Tokens, norm: Norm) -> Tensor:
    """``(b l d)`` every token, in the order of the sequence."""
    return norm(tokens.stream)


# Keys are timm's.
POOLING: dict[str, Callable[[Tokens, Norm], Tensor]] = {
    "token": class_token,
    "avg": mean,
    "max": largest,
    "": all_tokens,
}
