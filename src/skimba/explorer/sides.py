"""A side of the page: the dense model, or a pruning of it that a visitor chose; and the code that makes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.explorer.catalogue import Opened
from skimba.models import TokenModel
from skimba.pruning import METHODS, Flops, Method, Pruner, Share, prune
from skimba.pruning.schedule import stage_blocks
from skimba.tokens import ALIGNMENTS

PHOTO, CLIP = "PHOTO", "CLIP"  # stand for the visitor's file
NAMES = ("dense", "own", *METHODS)


@dataclass(frozen=True)
class Side:
    """What stands on one side.

    Attributes:
        method: a key of ``METHODS``; ``"dense"``: no pruning; ``"own"``: as the model was given.
        align: a key of ``ALIGNMENTS`` in place of the method's own, or None.
        share: of the tokens that stay at each of the method's stages, in 0.05 … 1; or None.
        flops: the share of the dense model's exact FLOPs to come down to, in 0.05 … 1; or None.

    Raises:
        ValueError, TypeError: out of range, or settings that do not go together.
    """

    method: str = "dense"
    align: str | None = None
    share: float | None = None
    flops: float | None = None

    def __post_init__(self) -> None:
        if self.method not in NAMES:
            raise ValueError(f"unknown method {self.method!r}; known: {', '.join(NAMES)}")
        if self.align not in (None, *ALIGNMENTS):
            raise ValueError(f"unknown alignment {self.align!r}; known: {', '.join(ALIGNMENTS)}")
        amounts = [amount for amount in (self.share, self.flops) if amount is not None]
        if self.method not in METHODS:
            if amounts or self.align is not None:
                raise ValueError(f"{self.method!r} takes no alignment, share or target")
            return
        if len(amounts) != 1:
            raise ValueError("a pruning takes the share kept at each stage or a target of FLOPs, one of the two")
        if isinstance(amounts[0], bool) or not isinstance(amounts[0], int | float):
            raise TypeError(f"a share is a number, got {amounts[0]!r}")
        if not 0.05 <= amounts[0] <= 1:
            raise ValueError(f"a share is a number in 0.05 … 1, got {amounts[0]}")

    @classmethod
    def read(cls, plain: Any) -> Side:
        """From what the page sends."""
        if not isinstance(plain, Mapping) or not set(plain) <= set(cls.__dataclass_fields__):
            raise TypeError(f"a side is a table of {', '.join(cls.__dataclass_fields__)}, got {str(plain)[:80]}")
        return cls(**plain)

    def make(self, opened: Opened) -> TokenModel | DenseModel:
        """The model of this side. Weights are shared.

        Raises:
            ValueError: the parts do not go together, or a target is out of reach.
        """
        if self.method not in METHODS:
            return {"dense": opened.dense, "own": opened.given}[self.method]
        method = self._method()
        schedule: Any = Flops(float(self.flops)) if self.flops else self._stages(method, opened)
        pruned = prune(opened.dense, method, schedule).eval()
        reducer = tokens_of(pruned).reducer
        assert isinstance(reducer, Pruner)
        if reducer.scorer is not None:
            raise ValueError(f"{self.method} has a score that is to be trained first; the explorer trains nothing")
        return pruned

    def classifier(self, opened: Opened) -> TokenModel:
        """The same of a classifier. Raises ValueError for another model."""
        return opened.as_classifier(lambda: self.make(opened))

    def _method(self) -> Method:
        method = METHODS[self.method]
        return method if self.align is None else replace(method, align=self.align)

    def _stages(self, method: Method, opened: Opened) -> dict[int, float]:
        assert self.share is not None
        share = max(float(self.share), method.part.least_share)
        return dict.fromkeys(stage_blocks(method.stages, len(opened.tokens.layers)), share)


def code(side: Side, opened: Opened, model: TokenModel | DenseModel) -> dict[str, str]:
    """What makes the same elsewhere: ``python``, ``command``, and ``file``, the JSON that the command reads (or nothing)."""
    reducer = tokens_of(model).reducer
    offer, name = opened.offer, f"model = {opened.offer.python}.eval()"
    command = f"skimba predict {offer.arguments} {CLIP if opened.clips else PHOTO} --out predictions.csv"
    if side.method == "own" or not isinstance(reducer, Pruner):
        dense = side.method == "dense" and opened.given is not opened.dense
        return {
            "python": f"import skimba\n\n{name}" + ("\nmodel = skimba.unprune(model)" if dense else ""),
            "command": command,
            "file": "",
        }
    schedule = f"skimba.Flops({side.flops})" if side.flops else str(reducer.schedule)
    method, imports = f'"{side.method}"', ""
    if side.align is not None:
        imports = "from dataclasses import replace\n\n"
        method = f'replace(skimba.METHODS["{side.method}"], align="{side.align}")'
        command, file = f"{command} --prune pruning.json", json.dumps(reducer.to_dict(), indent=2)
    else:
        stages = ",".join(f"{block}:{_plain(amount)}" for block, amount in reducer.amounts.items())
        stages = f"flops:{side.flops}" if side.flops else stages
        command, file = f"{command} --prune {side.method} --schedule {stages}", ""
    python = f"{imports}import skimba\n\n{name}\npruned = skimba.prune(model, {method}, {schedule})"
    return {"python": python, "command": command, "file": file}


def _plain(amount: Any) -> str:
    return str(amount.share if isinstance(amount, Share) else amount)


def trainable(method: Method) -> bool:
    """Whether it has a score that is to be trained, so that an untrained model cannot show it."""
    return method.part.scorer(16, {1: Share(0.5)}, 0) is not None


def methods_shown() -> list[str]:
    """Names of the methods that need no training."""
    return [name for name, method in METHODS.items() if not trainable(method)]
