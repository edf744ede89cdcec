"""What every model is: image -> tokens -> blocks, with one reducer between them -> head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skimba.layers.correction import Correction
from skimba.layers.patch_embed import Extras, PatchEmbed, no_extras
from skimba.models.features import FORMATS, Part, as_features, extra_tokens, start_parts
from skimba.models.pooling import POOLING
from skimba.models.reducer import Reducer, check_reducer
from skimba.models.sharing import shared_twin
from skimba.models.timm_model import TimmModel, chosen_blocks
from skimba.tokens import Groups, Restore, Tokens


class TokenModel(TimmModel):
    """A model: from images to logits.

    A model defines ``parts``, ``embed`` (images to tokens), ``layers`` (the blocks), the ``grid`` that its positions are for,
    and ``read`` where its head reads something that is not in :data:`skimba.models.pooling.POOLING`.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``.
        in_chans: image channels.
        embed_dim: model width.
        num_classes: size of the head; 0: none, logits are what the head would read.
        global_pool: what the head reads: a key of :data:`skimba.models.pooling.POOLING`.
        drop_rate: dropout before the head.

    Attributes:
        paper_schedule: ``{blocks: share of the tokens kept}`` as the paper prunes this model; None if no paper does.
        pretrained_cfg: timm's: the preprocessing of the weights; and the ``architecture`` and ``sizes`` given to create_model.
        fixed_by_grid: names of buffers that follow from the grid: a checkpoint of another grid need not fit them.
        position_extras: which rows of its position embedding are those of extra tokens.
        task: what the model is for: a key of :data:`skimba.tasks.TASKS`.
        family: a value of :data:`skimba.models.origin.FAMILIES`, whose checkpoints the model takes; any other takes all that fit.
    """

    task = "classification"
    family = ""
    grid: tuple[int, ...]
    position_extras: Extras = staticmethod(no_extras)
    fixed_by_grid: frozenset[str] = frozenset()

    def __init__(
        self,
        img_size: int | tuple[int, int],
        in_chans: int,
        embed_dim: int,
        num_classes: int,
        global_pool: str = "",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(img_size, in_chans, embed_dim, num_classes, global_pool, drop_rate)
        self.reducer: Reducer | None = None
        self.correction: Correction | None = None  # of a pruning, to what the head reads (skimba.refit)
        self.paper_schedule: Mapping[int, float] | None = None

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return "" if self.reducer is None else str(self.reducer)

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens."""
        raise NotImplementedError

    def final_norm(self, stream: Tensor) -> Tensor:
        """The norm before the head, on ``(... d)``."""
        norm = self.get_submodule(self.parts.norm)
        weight = next(norm.parameters(), None)  # none in a model that was cut for its features
        return norm(stream if weight is None else stream.to(weight.dtype))

    def read(self, tokens: Tokens) -> Tensor:
        """What the head reads of the tokens after the last block, ``(b d)``."""
        return POOLING[self.global_pool](tokens, self.final_norm)

    def forward_features(self, x: Tensor) -> Tokens | Groups:
        """``(b c height width)`` -> the tokens after the last block, before the final norm; in groups where not all images have
        equally many."""
        return self._blocks(self.embed(x), 0)

    def forward_head(self, x: Tokens | Groups, pre_logits: bool = False) -> Tensor:
        """Logits ``(b num_classes)`` of the tokens after the last block, or what the head reads ``(b d)``."""
        if isinstance(x, Groups):
            return x.join(partial(self.forward_head, pre_logits=pre_logits))
        read = self.read(x)
        if self.correction is not None:
            read = self.correction(read)
        read = self.head_drop(read)
        return read if pre_logits else self.get_classifier()(read)

    def forward(self, x: Tensor) -> Tensor:
        """``(b c height width)`` -> logits ``(b num_classes)``."""
        extras_only = self.global_pool == "token" and self.reducer is not None and self.reducer.head_only
        return self.forward_head(self._blocks(self.embed(x), 0, extras_only))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        restore: str | Callable[[], Restore] = "auto",
    ) -> Any:
        """Features after chosen blocks (and the reduction that follows them), on the full grid; as timm's models give them.

        Args:
            x: ``(b c height width)``.
            indices: blocks counted from 0, or from the end where negative; an int: so many last ones; None: all.
            return_prefix_tokens: also give the extra tokens ``(b x d)`` of each.
            norm: apply the final norm to each.
            stop_early: compute no block after the last one asked for.
            output_fmt: ``"NCHW"``: maps ``(b d h w)``; ``"NLC"``: ``(b h*w d)``. Extra tokens are left out.
            intermediates_only: give the list of features alone, otherwise what ``forward_features`` gives, and the list.
            output_dict: give a dict with timm's keys.
            restore: what positions show whose token is gone: a key of :data:`skimba.tokens.RESTORE`, or a function like those in
                it. ``"owner"`` and ``"last_plus_change"`` need a method that leaves owners.

        Raises:
            ValueError: an unknown format or restore, or a restore that needs owners where there are none.
        """
        if output_fmt not in FORMATS:
            raise ValueError(f"unknown output_fmt {output_fmt!r}; known: {', '.join(FORMATS)}")
        wanted = chosen_blocks(len(self.layers), indices)
        read = self.final_norm if norm else nn.Identity()
        parts = start_parts(self.embed(x), restore)
        features: dict[int, Tensor] = {}
        extras: dict[int, Tensor] = {}
        for block in range(max(wanted) + 1 if stop_early or intermediates_only else len(self.layers)):
            parts = self.run(parts, block + 1, block + 1)
            if block in wanted:
                features[block] = FORMATS[str(output_fmt)](parts, read).contiguous()
                extras[block] = extra_tokens(parts, read)
        maps, prefixes = [features[block] for block in wanted], [extras[block] for block in wanted]
        with_prefixes = return_prefix_tokens and self.class_token_count > 0
        if output_dict:
            found: dict[str, Any] = {"image_intermediates": maps}
            if with_prefixes:
                found["image_intermediates_prefix"] = prefixes
            return found if intermediates_only else {**found, "image_features": as_features(parts)}
        listed = list(zip(maps, prefixes, strict=True)) if with_prefixes else maps
        return listed if intermediates_only else (as_features(parts), listed)

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> the maps ``(b d h w)`` that count where there is no head: that after the last block."""
        maps: list[Tensor] = self.forward_intermediates(x, 1, intermediates_only=True)
        return maps

    def run(self, parts: Sequence[Part], first: int, last: int) -> list[Part]:
        """The blocks ``first`` to ``last`` (1-based), with the reducer after each, remembering full grids."""
        for number in range(first, last + 1):
            parts = [after for part in parts for after in self._step(part, number)]
        return list(parts)

    def _step(self, part: Part, number: int) -> list[Part]:
        tokens = self._block(part.tokens, number)
        return part.go_on(tokens, tokens if self.reducer is None else self.reducer(tokens, number))

    def _block(self, tokens: Tokens, number: int, **asked: bool) -> Tokens:
        """One block (1-based)."""
        record = self.reducer is not None and self.reducer.reads_scan(number)
        block = partial(self.layers[number - 1], record=record, **asked)
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False)
        return block(tokens)

    def _blocks(self, tokens: Tokens, done: int, extras_only: bool = False) -> Tokens | Groups:
        """The blocks after the first ``done``; with ``extras_only`` the last one computes nothing but the extra tokens."""
        for number in range(done + 1, len(self.layers) + 1):
            if extras_only and number == len(self.layers):
                return self._block(tokens, number, extras_only=True)
            tokens = self._block(tokens, number)
            if self.reducer is not None:
                reduced = self.reducer(tokens, number)
                if isinstance(reduced, Groups):
                    return reduced.map(partial(self._blocks, done=number, extras_only=extras_only))
                tokens = reduced
        return tokens


Model = TypeVar("Model", bound=TokenModel)


def with_reducer(model: Model, reducer: Reducer | None) -> Model:
    """A model with the same weights and another reducer; the one given stays as it is (see :func:`shared_twin`).

    Raises:
        TypeError: ``reducer`` lacks a part of the protocol.
    """
    check_reducer(reducer)
    twin = shared_twin(model)
    twin._modules.pop("scorer", None)
    if reducer is not None and reducer.scorer is not None:
        twin.scorer = reducer.scorer
    twin.reducer = reducer
    return twin


class PatchModel(TokenModel):
    """A model whose tokens are the patches of one ``patch_embed``."""

    patch_embed: PatchEmbed

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embed.patch_size

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels; less than their side where they overlap."""
        return self.patch_embed.stride
