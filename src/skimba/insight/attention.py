"""Hidden attention: how much each position of a scan's input counts for each position of its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.insight.linear import LinearScan, Part, linear_scan, of_channels
from skimba.insight.places import check_positions, share_columns, spread_rows, token_of_position
from skimba.insight.watching import BlockRun, plain_mode, watch_block
from skimba.models import TokenModel
from skimba.tokens import Layout

Combine = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Attention:
    """Hidden attention of one block, its channels combined.

    Attributes:
        weight: ``(b s i j)`` of image ``b`` and scan ``s``: how much position ``i`` reads of position ``j``; zero where no token
            stands for a position.
        walks: of each scan, keys of :data:`skimba.tokens.walks.WALKS`.
        positions: ``(i)`` the positions that read, of the full sequence.
        layout: of the tokens in the block.
    """

    weight: Tensor
    walks: tuple[str, ...]
    positions: tuple[int, ...]
    layout: Layout

    @property
    def summed(self) -> Tensor:
        """``(b i j)`` over all scans."""
        return self.weight.sum(1)

    @property
    def maps(self) -> Tensor:
        """``(b s i h w)`` what is read of the image patches; of a clip ``(b s i t h w)``."""
        return self._of_grid(self.weight)

    @property
    def summed_maps(self) -> Tensor:
        """``(b i h w)`` over all scans."""
        return self._of_grid(self.summed)

    def _of_grid(self, weight: Tensor) -> Tensor:
        image = self.layout.image_part(weight.flatten(0, -2))
        return image.unflatten(0, weight.shape[:-1])


@dataclass(frozen=True, eq=False)
class ChannelAttention:
    """Hidden attention of one block in single channels: ``output = weight @ read + rest`` for each of them, exactly.

    Attributes:
        weight: ``(b s e i j)`` how position ``i`` of a scan's output depends on position ``j`` of its input.
        read: ``(b s e j)`` the input: of the scan, or of the convolution where that is included.
        rest: ``(b s e i)`` what no position brings: the convolution's bias, and padding of windows.
        output: ``(b s e i)`` what the scan gave, with the parts that are included.
        walks, layout: as in :class:`Attention`.
    """

    weight: Tensor
    read: Tensor
    rest: Tensor
    output: Tensor
    walks: tuple[str, ...]
    layout: Layout


def hidden_attention(
    model: TokenModel,
    images: Tensor,
    block: int,
    *,
    positions: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    include: Sequence[Part] = (),
    combine: str | Combine = "magnitude",
) -> Attention:
    """How much each position of the full sequence counts for each other in one block, by scan::

        α_ij = C_i (∏_{i ≥ t > j} exp(τ_t A)) Δ_j B_j                      τ_t: the time that passes at step t

    A scan is linear in its input: the columns of α are what the scan makes of unit impulses, whatever its order and however time
    passes at gaps and for owners; a row is one backward call.

    In coordinates of the full sequence: a position reads what the token that stands for it reads, and a token that is read
    is shared out equally among the positions that it stands for.

    Args:
        model: dense or pruned.
        images: ``(b c height width)``.
        block: 1-based.
        positions: those that read: all if None. Few are fast: one backward call for all channels.
        channels: over which to combine: all if None.
        include: what else lies on the way: ``"skip"`` adds D; ``"gate"`` multiplies by ``silu(z)`` of the reading position;
            ``"convolution"`` goes on to the input of the convolution, whose silu is ``sigmoid(x) · x`` with the factor as it is.
        combine: a key of :data:`COMBINE`, or a function ``(... e) -> (...)``.

    Raises:
        ValueError: a block, position or channel out of range, an unknown part or key; images that keep different numbers of
            tokens.

    Source: Ali et al., "The Hidden Attention of Mamba Models" (arXiv 2403.01590), equation 11; gate and convolution as Zimerman
    et al., "Explaining Modern Gated-Linear RNNs via a Unified Implicit Attention Formulation" (arXiv 2405.16504). Time at gaps,
    owners and other orders are ours.
    """
    with plain_mode():
        run = watch_block(model, images, block)
        layout = run.tokens.layout
        weight = block_attention(run, positions, channels, include, combine)
    asked = range(layout.full_length) if positions is None else positions
    return Attention(weight, _walks(run), tuple(asked), layout)


def block_attention(
    run: BlockRun,
    positions: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    include: Sequence[Part] = (),
    combine: str | Combine = "magnitude",
) -> Tensor:
    """``(b s i j)`` of a block as it ran: see :func:`hidden_attention`."""
    layout, reduce, weights = run.tokens.layout, _combine(combine), []
    if positions is not None:
        check_positions(layout, positions)
    for image in range(run.tokens.x.shape[0]):
        token = token_of_position(layout, image)
        asked = None if positions is None else token[list(positions)]
        for number in range(len(run.scans)):
            scan = linear_scan(run, number, image, include)
            scan = scan if channels is None else of_channels(scan, channels)
            weights.append(_at_positions(_combined(scan, asked, reduce), token, asked))
    return torch.stack(weights).unflatten(0, (-1, len(run.scans)))


def _combined(scan: LinearScan, asked: Tensor | None, reduce: Combine) -> Tensor:
    """``(i j)`` of the asked tokens ``(i)`` (-1: none), or of all."""
    if asked is not None:
        return reduce(scan.rows(asked.clamp(min=0)))
    weight = scan.read.new_empty(scan.length, scan.length)
    for tokens, block in scan.columns():
        weight[:, tokens] = reduce(block).T
    return weight


def _at_positions(weight: Tensor, token: Tensor, asked: Tensor | None) -> Tensor:
    """``(... i j)`` of tokens -> of positions."""
    shared = share_columns(weight, token)
    return spread_rows(shared, token) if asked is None else shared * (asked >= 0)[:, None]


def channel_attention(
    model: TokenModel, images: Tensor, block: int, channels: Sequence[int], include: Sequence[Part] = ()
) -> ChannelAttention:
    """Hidden attention in single channels, with what it is exact for. Arguments and errors: see :func:`hidden_attention`.

    Args:
        channels: which; ``(L L)`` values of each are kept.
    """
    with plain_mode():
        run = watch_block(model, images, block)
        found = []
        for image in range(len(images)):
            token = token_of_position(run.tokens.layout, image)
            for number in range(len(run.scans)):
                scan = of_channels(linear_scan(run, number, image, include), channels)
                weight = torch.cat([columns for _, columns in scan.columns()]).permute(2, 1, 0)  # (e l l)
                ends = (scan.read[0, : scan.length], scan.rest, scan.output)  # (l e) each
                found.append((_at_positions(weight, token, None), *(spread_rows(x, token).T for x in ends)))
    parts = [torch.stack(part).unflatten(0, (len(images), -1)) for part in zip(*found, strict=True)]
    return ChannelAttention(parts[0], parts[1], parts[2], parts[3], _walks(run), run.tokens.layout)


def _walks(run: BlockRun) -> tuple[str, ...]:
    return tuple(call.walk for call in run.scans)


def _combine(given: str | Combine) -> Combine:
    if callable(given):
        return given
    if given not in COMBINE:
        raise ValueError(f"unknown combine {given!r}; known: {', '.join(COMBINE)}, or a function")
    return COMBINE[given]


def _magnitude(x: Tensor) -> Tensor:
    """Sum of the channels' absolute values."""
    return x.abs().sum(-1)


def _sum(x: Tensor) -> Tensor:
    """Sum of the channels, with their signs."""
    return x.sum(-1)


COMBINE: dict[str, Combine] = {"magnitude": _magnitude, "sum": _sum}
