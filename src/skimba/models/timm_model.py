"""What timm's tools ask of a model besides its forward pass: its parts by name, its head, groups of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from skimba.models.pooling import POOLING
from skimba.models.sharing import SharedWeights

# Last parts of the names of parameters without weight decay: rates and skips of the recurrence, and what marks tokens.
NOT_DECAYED = frozenset(
    {
        "A_log",
        "A_b_log",
        "D",
        "D_b",
        "direction_Bs",
        "pos_embed",
        "cls_token",
        "pos_embed_cls",
        "temporal_pos_embedding",
    }
)
NOT_DECAYED |= {f"{name}_{walk}" for name in ("A_log", "D") for walk in range(4)}  # LocalVim's


@dataclass(frozen=True)
class PartNames:
    """Where a model has what all have: dotted names of modules, as in the official state dicts."""

    layers: str
    norm: str
    head: str
    first_conv: str
    patches: str  # the convolution that makes a token of a patch


class TimmModel(SharedWeights):
    """A model as timm's tools take it. Arguments and attributes: see :class:`skimba.models.TokenModel`.

    Attributes:
        parts: where it has what all have.
        class_token_count: extra tokens beside those of the image.
        grad_checkpointing: whether the blocks' inner values are computed again in the backward pass, instead of kept.
    """

    parts: ClassVar[PartNames]
    class_token_count: int
    layers: nn.ModuleList

    def __init__(
        self,
        img_size: int | tuple[int, int],
        in_chans: int,
        embed_dim: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans, self.num_classes = in_chans, num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.pretrained_cfg: dict[str, Any] = {}
        self.grad_checkpointing = False
        self.set_pooling(global_pool)
        self.head_drop = nn.Dropout(drop_rate)

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels; less than their side where they overlap."""
        raise NotImplementedError

    def input_shape(self, img_size: int | tuple[int, int] | None = None) -> tuple[int, ...]:
        """Shape of one input, ``(in_chans, height, width)``, of another size if one is given."""
        size = self.img_size if img_size is None else img_size
        return self.in_chans, *((size, size) if isinstance(size, int) else size)

    def set_pooling(self, global_pool: str) -> None:
        """Choose what the head reads.

        Raises:
            ValueError: an unknown key, or ``"token"`` where there is no class token.
        """
        if global_pool not in POOLING:
            raise ValueError(f"unknown global_pool {global_pool!r}; known: {', '.join(map(repr, POOLING))}")
        if global_pool == "token" and self.class_token_count == 0:
            raise ValueError(f"{type(self).__name__} has no class token: global_pool cannot be 'token'")
        self.global_pool = global_pool

    def get_classifier(self) -> nn.Module:
        """The head's last layer; ``nn.Identity`` if there are no classes."""
        return self.get_submodule(self.parts.head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head; 0 classes: none."""
        if global_pool is not None:
            self.set_pooling(global_pool)
        weight = next(self.get_submodule(self.parts.norm).parameters())
        head = classifier(self.head_hidden_size, num_classes).to(weight.device, weight.dtype).train(self.training)
        for parameter in head.parameters():
            nn.init.trunc_normal_(parameter, std=0.02) if parameter.dim() == 2 else nn.init.zeros_(parameter)
        self._set_part(self.parts.head, head)
        self.num_classes = num_classes

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Cut off, for good, what the features after those blocks do not need; the blocks counted from 0."""
        wanted = chosen_blocks(len(self.layers), indices)
        self._set_part(self.parts.layers, self.layers[: max(wanted) + 1])
        if prune_norm:
            self._set_part(self.parts.norm, nn.Identity())
        if prune_head:
            self._set_part(self.parts.head, nn.Identity())
            self.num_classes = 0
        return wanted

    def _set_part(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self.get_submodule(parent), child, module)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks' inner values again in the backward pass, instead of keeping them: less memory, more time."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not decay."""
        return {name for name, _ in self.named_parameters() if name.rsplit(".", 1)[-1] in NOT_DECAYED}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which depth, for timm's layer-wise decay: the stem, each block, the norm."""
        layers, norm, head = (
            name.replace(".", r"\.") for name in (self.parts.layers, self.parts.norm, self.parts.head)
        )
        blocks = rf"^{layers}\.(\d+)"
        return {
            "stem": rf"^(?!{layers}\.|{norm}\.|{head}\.|scorer\.|correction\.)",
            "blocks": blocks if coarse else [(blocks, None), (rf"^{norm}\.", (99999,))],
        }

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's: name, channels and distance in pixels of the map after each block."""
        return [
            {"module": f"{self.parts.layers}.{block}", "num_chs": self.num_features, "reduction": self.patch_stride}
            for block in range(len(self.layers))
        ]

    @property
    def default_cfg(self) -> dict[str, Any]:
        """timm's older name of ``pretrained_cfg``."""
        return self.pretrained_cfg


def classifier(width: int, num_classes: int) -> nn.Module:
    """A linear layer to the classes; ``nn.Identity`` for none."""
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


def chosen_blocks(depth: int, indices: int | Sequence[int] | None) -> list[int]:
    """Blocks counted from 0: the last so many for an int, all for None; negative ones count from the end.

    Raises:
        ValueError: a block that the model does not have, or none at all.
    """
    if indices is None:
        return list(range(depth))
    wanted = list(range(depth - indices, depth)) if isinstance(indices, int) else list(indices)
    lowest = 0 if isinstance(indices, int) else -depth
    if not wanted or not all(lowest <= block < depth for block in wanted):
        raise ValueError(f"indices are blocks of 0 … {depth - 1}, or up to {depth} last ones, got {indices}")
    return [block % depth for block in wanted]
