"""How much a model computes, in multiply-adds, by two conventions.

``exact`` is what runs: every scan direction, an aligned convolution over all the positions it looks at, the matching of a
reducer. Speed follows this one. ``published`` is what the papers' tables use: Vim's mixer counted as if it had one direction
(github hustvl/Vim and those who compare with it), no matching; PlainMamba with all four scans. By both, a detector has 1,000
boxes and 100 masks, deformable attention reads its places, and resizing, pooling and reading regions are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from skimba.dense.model import DenseModel, tokens_of, with_inner_reducer
from skimba.layers.deformable import DeformableAttention
from skimba.layers.mixer import Block, Mixer
from skimba.models import Reducer, TokenModel
from skimba.tokens import Groups, Tokens

REDUCER = "reducer"  # its line in FlopCount.by_module
SCORER = ".scorer."  # a learned importance's modules: they run within the reducer


@dataclass(frozen=True)
class FlopCount:
    """Multiply-adds for one image.

    Attributes:
        convention: ``"published"`` or ``"exact"``.
        by_module: for every module that computes (mixers as a whole), by its name; ``"reducer"`` for choosing and merging.
        by_part: the same summed by the parts of the model. Of a detector or segmenter: ``"backbone"`` (what pruning makes
            cheaper), ``"adapter"`` (what stands beside it), and each head.
    """

    convention: str
    by_module: dict[str, int]
    by_part: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_module.values())


def count_flops(
    model: TokenModel | DenseModel,
    img_size: int | tuple[int, int] | None = None,
    convention: str = "published",
    images: Tensor | None = None,
) -> FlopCount:
    """Count a model's multiply-adds for one image, dense or pruned, by running it on tensors without data.

    Args:
        model: a skimba model, detector or segmenter.
        img_size: side of the image in pixels, or ``(height, width)``; the model's own if None.
        convention: ``"published"`` or ``"exact"``.
        images: ``(b c height width)``: count the mean over these, for a model whose tokens depend on the image
            (``counts="mass"``); ``img_size`` is then theirs.

    Raises:
        ValueError: an unknown convention; or no images, for a model whose tokens depend on the image or whose pruning has a
            function that reads values.
        TypeError: a block whose mixer cannot say its multiply-adds.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    exact = convention == "exact"
    reducer = tokens_of(model).reducer
    if images is None and reducer is not None and reducer.counts_by_image:
        raise ValueError("how many tokens stay depends on the images here: count on some, images=…")
    twin = _without_data(model) if images is None else copy.deepcopy(model).eval()
    counts: dict[str, int] = {}
    inside: tuple[str, ...] = ()  # names of modules that are counted as a whole
    for name, module in twin.named_modules():
        formula = next((found for kind, found in FORMULAS.items() if isinstance(module, kind)), None)
        if isinstance(module, Block) and not isinstance(module.mixer, Mixer):
            raise TypeError(
                f"{name} mixes by {type(module.mixer).__name__}, which cannot say its multiply-adds: a mixer is a Mixer"
            )
        if formula is None or SCORER in f".{name}" or name.startswith(inside):
            continue
        if isinstance(module, Mixer):
            inside += (name + ".",)
        module.register_forward_hook(_counter(counts, name, formula, exact))
    if (reducer := tokens_of(twin).reducer) is not None:
        twin = with_inner_reducer(twin, _CountingReducer(reducer, counts, exact))
    with torch.no_grad():
        if images is None:
            size = model.img_size if img_size is None else img_size
            shape, dtype = tokens_of(twin).input_shape(size), next(twin.parameters()).dtype
            images = torch.empty((1, *shape), dtype=dtype, device="meta")
        twin.forward_counted(images) if isinstance(twin, DenseModel) else twin(images)
    by_module = {name: round(count / len(images)) for name, count in counts.items()}
    return FlopCount(convention, by_module, _by_part(model, by_module))


def _by_part(model: TokenModel | DenseModel, by_module: dict[str, int]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for name, count in by_module.items():
        part = model.part_of(name) if isinstance(model, DenseModel) else name.split(".")[0]
        parts[part] = parts.get(part, 0) + count
    return parts


Counted = TypeVar("Counted", bound=TokenModel | DenseModel)


def _without_data(model: Counted) -> Counted:
    """A copy in evaluation mode whose tensors have shapes and no data."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): b.to("meta") for b in model.buffers()}
    twin = copy.deepcopy(model, memo)
    twin.eval()
    return twin


def _counter(counts: dict[str, int], name: str, formula: Formula, exact: bool) -> Callable[..., None]:
    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        counts[name] = counts.get(name, 0) + formula(module, inputs, output, exact)

    return count


class _CountingReducer(Reducer):
    """A model's own reducer, its matrix products counted where the convention is exact."""

    def __init__(self, reducer: Reducer, counts: dict[str, int], exact: bool) -> None:
        self.reducer, self.counts, self.exact = reducer, counts, exact

    @property
    def head_only(self) -> bool:
        return self.reducer.head_only

    @property
    def scorer(self) -> nn.Module | None:
        return self.reducer.scorer

    def reads_scan(self, block: int) -> bool:
        return self.reducer.reads_scan(block)

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        try:
            with FlopCounterMode(display=False) as counter:
                reduced = self.reducer(tokens, block)
        except (RuntimeError, NotImplementedError) as error:
            if not tokens.x.is_meta:
                raise
            raise ValueError(
                "FLOPs are counted on tensors without data (device 'meta'), but a function of this pruning reads values, or "
                f"makes tensors on another device than its tokens'. Count on real images, images=… ({error})"
            ) from error
        if self.exact:
            self.counts[REDUCER] = self.counts.get(REDUCER, 0) + counter.get_total_flops() // 2
        return reduced


Formula = Callable[[Any, tuple[Any, ...], Any, bool], int]


def _linear(module: nn.Linear, inputs: tuple[Any, ...], output: Tensor, exact: bool) -> int:
    return output.numel() * module.in_features


def _conv(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: tuple[Any, ...], output: Tensor, exact: bool) -> int:
    return output.numel() * module.weight[0].numel()


def _conv_transpose(module: nn.ConvTranspose2d, inputs: tuple[Any, ...], output: Tensor, exact: bool) -> int:
    return inputs[0].numel() * module.weight[0].numel()


def _deformable(module: DeformableAttention, inputs: tuple[Any, ...], output: Tensor, exact: bool) -> int:
    """What its projections, which are counted by themselves, do not do."""
    return output.shape[0] * module.multiply_adds(output.shape[1])


def _mixer(module: Mixer, inputs: tuple[Any, ...], output: Any, exact: bool) -> int:
    hidden, layout = inputs[:2]
    return hidden.shape[0] * module.multiply_adds(layout, output[0].shape[1], exact)


CONVENTIONS = ("published", "exact")
# Of a class and all that inherit it.
FORMULAS: dict[type[nn.Module], Formula] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.ConvTranspose2d: _conv_transpose,
    DeformableAttention: _deformable,
    Mixer: _mixer,
}
