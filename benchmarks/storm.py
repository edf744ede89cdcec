"""STORM's protocol (arXiv 2606.19932): tokens are reduced inside single blocks alone, and stand on the full grid after each.

Its rows and columns of local windows are pairs of local windows here, as in the method ``local``.
"""

from __future__ import annotations

from dataclasses import dataclass

from skimba.models import Reducer
from skimba.pruning import Pairs, Stage
from skimba.pruning.reduction import Reduction
from skimba.tokens import NONE, Alignment, Layout, Tokens, take

SHARE = 0.5  # kept inside a block
EVERY = 4  # blocks


@dataclass(frozen=True)
class InsideBlocks(Reducer):
    """Before every ``every``-th block tokens are reduced; after it each position shows the token that owns it.

    Attributes:
        reduction: one that leaves owners.
        alignment: what the block does about missing positions.
    """

    reduction: Reduction = Pairs("sequence", "local", once=True)  # noqa: RUF009, frozen
    alignment: Alignment = NONE
    every: int = EVERY
    share: float = SHARE

    def __call__(self, tokens: Tokens, block: int) -> Tokens:
        if block % self.every == 0:
            return on_the_grid(tokens)
        if (block + 1) % self.every:
            return tokens
        return self.reduction(tokens, Stage(int(self.share * tokens.layout.image_count), self.alignment))


def on_the_grid(tokens: Tokens) -> Tokens:
    """Every position a token of its own again, with the values of its owner."""
    owner = tokens.owner
    if owner is None:
        return tokens
    layout = Layout(tokens.grid, tokens.layout.extras, device=tokens.layout.device)
    residual = None if tokens.residual is None else take(tokens.residual, owner)
    return Tokens(take(tokens.x, owner), layout, residual)
