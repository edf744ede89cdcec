"""What is done about positions whose token is gone, as a value: how much time a scan lets pass, what a convolution finds there.

``none``: missing positions do not exist, the tokens that are left become neighbours. ``decay`` (Zhan et al., "Exploring Token
Pruning in Vision State Space Models", NeurIPS 2024): a missing position adds nothing, but its time passes and the state decays.
``hold`` (ours): every position keeps an owner, which stands for all the positions it owns, as a sampled continuous-time system
is resampled: the scan takes one of its steps at each of them, all with the owner's input, and the convolution sees it there.
``hold_first_order`` lets one step last as long as all of them instead, which is the same to first order in the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

ScanTime = dict[str, Any]  # some of `gap`, `step`, `hold` and `missing`, arguments of skimba.selective_scan


class Times(Protocol):
    """What a scan rule may read of a :class:`~skimba.tokens.ScanOrder`."""

    @property
    def missing(self) -> Tensor | None: ...
    @property
    def size(self) -> Tensor | None: ...


class Sources(Protocol):
    """What a convolution rule may read of a :class:`~skimba.tokens.Layout`."""

    @property
    def position_source(self) -> Tensor | None: ...
    @property
    def owner_source(self) -> Tensor | None: ...


@dataclass(frozen=True)
class ScanRule:
    """How a scan makes up for missing positions.

    Attributes:
        time: ``(order, delta, delta_bias)`` -> arguments of :func:`skimba.selective_scan`; ``delta (b l e)`` are the time
            steps before softplus and bias, in the order of the steps, ``delta_bias (e)``.
        by_owner: whether a token stands for all the positions it owns: then every position needs an owner, and a mean over
            the positions counts a token for all of its own. Left out, it is whether ``time`` reads ``order.size``, found by
            calling it once on a scan of two tokens.

    Raises:
        ValueError: ``time`` fails on those two tokens, and ``by_owner`` is left out.
    """

    time: Callable[[Times, Tensor, Tensor], ScanTime]
    by_owner: bool = None  # type: ignore[assignment]  # a bool once it is made

    def __post_init__(self) -> None:
        if self.by_owner is None:
            object.__setattr__(self, "by_owner", "size" in _read_by(self.time, torch.zeros(1, 2, 1), torch.zeros(1)))


@dataclass(frozen=True)
class ConvRule:
    """What a convolution finds at a missing position.

    Attributes:
        source: ``layout`` -> ``(b L)`` int32, the token that stands at each position, -1 for zeros; or None: the convolution
            runs over the tokens that are left.
        by_owner: whether every position needs an owner. Left out, it is whether ``source`` reads ``layout.owner_source``,
            found by calling it once on a sequence of two tokens.

    Raises:
        ValueError: ``source`` fails on those two tokens, and ``by_owner`` is left out.
    """

    source: Callable[[Sources], Tensor | None]
    by_owner: bool = None  # type: ignore[assignment]  # a bool once it is made

    def __post_init__(self) -> None:
        if self.by_owner is None:
            object.__setattr__(self, "by_owner", "owner_source" in _read_by(self.source))


class _Example:
    """Two tokens that are left of three, as a scan rule and a convolution rule see them; it keeps the names that were read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Tensor:
        if name not in EXAMPLE:
            raise AttributeError(f"the rules of an alignment may read {', '.join(EXAMPLE)}, got {name!r}")
        self.read.add(name)
        return torch.tensor(EXAMPLE[name])


def _read_by(rule: Callable[..., Any], *arguments: Tensor) -> set[str]:
    """What a rule reads of its first argument."""
    example = _Example()
    try:
        rule(example, *arguments)
    except Exception as error:  # a user's function may raise anything
        raise ValueError(
            "whether this rule of an alignment goes by owners is found by calling it on two tokens, which failed "
            f"({type(error).__name__}: {error}): say it, with ScanRule(function, by_owner=…) or ConvRule(function, by_owner=…)"
        ) from error
    return example.read


Rule = TypeVar("Rule", ScanRule, ConvRule)


@dataclass(frozen=True)
class Alignment:
    """What the layers do about missing positions.

    Attributes:
        scan: a key of :data:`SCAN_RULES`, a value like those in it, or a function: ``ScanRule(function)``.
        conv: a key of :data:`CONV_RULES`, a value like those in it, or a function: ``ConvRule(function)``.

    Raises:
        ValueError: an unknown key.
    """

    scan: ScanRule
    conv: ConvRule

    def __init__(
        self,
        scan: str | ScanRule | Callable[..., ScanTime] = "none",
        conv: str | ConvRule | Callable[..., Tensor | None] = "condensed",
    ) -> None:
        object.__setattr__(self, "scan", _rule(scan, SCAN_RULES, ScanRule, "scan"))
        object.__setattr__(self, "conv", _rule(conv, CONV_RULES, ConvRule, "conv"))

    @property
    def needs_owner(self) -> bool:
        """Whether a token that goes must leave its positions to another."""
        return self.scan.by_owner or self.conv.by_owner


def _rule(given: Any, table: Mapping[str, Rule], kind: type[Rule], what: str) -> Rule:
    if isinstance(given, kind):
        return given
    if callable(given):
        return kind(given)
    if given not in table:
        raise ValueError(f"unknown {what} {given!r} of an alignment; known: {', '.join(table)}, or a function")
    return table[given]


def _none_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {}


def _decay_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """A missing position takes as long as the previous kept token in the scan. Exponents add, so a whole run of missing
    positions folds into the next step at no cost."""
    return {} if order.missing is None else {"missing": order.missing}


def _decay_own_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """A missing position takes as long as the next kept token."""
    if order.missing is None:
        return {}
    return {"gap": order.missing[..., None] * F.softplus(delta.float() + delta_bias)}


def _decay_bias_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """A missing position takes what the bias of the time step alone says."""
    return {} if order.missing is None else {"gap": order.missing[..., None] * F.softplus(delta_bias.float())}


def _hold_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """A token stands at all the positions it owns, one after another."""
    return {} if order.size is None else {"hold": order.size}


def _hold_first_order_time(order: Times, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """A token's step is as long as all the positions it owns: the sum over them to first order."""
    return {} if order.size is None else {"step": order.size}


def _no_source(layout: Sources) -> None:
    return None


def _position_source(layout: Sources) -> Tensor | None:
    return layout.position_source


def _owner_source(layout: Sources) -> Tensor:
    if layout.owner_source is None:
        raise ValueError("a held convolution needs positions with owners, got tokens reduced without an owner")
    return layout.owner_source


# What is left of three tokens whose middle one went to the last: places, and the numbers of positions.
EXAMPLE = {"missing": [[0.0, 1.0]], "size": [[1.0, 2.0]], "position_source": [[0, -1, 1]], "owner_source": [[0, 1, 1]]}
SCAN_RULES: dict[str, ScanRule] = {
    "none": ScanRule(_none_time, by_owner=False),
    "decay": ScanRule(_decay_time, by_owner=False),
    "decay_own": ScanRule(_decay_own_time, by_owner=False),
    "decay_bias": ScanRule(_decay_bias_time, by_owner=False),
    "hold": ScanRule(_hold_time, by_owner=True),
    "hold_first_order": ScanRule(_hold_first_order_time, by_owner=True),
}
CONV_RULES: dict[str, ConvRule] = {
    "condensed": ConvRule(_no_source, by_owner=False),
    "zeros": ConvRule(_position_source, by_owner=False),
    "held": ConvRule(_owner_source, by_owner=True),
}
NONE, DECAY = Alignment("none", "condensed"), Alignment("decay", "zeros")
HOLD, HOLD_FIRST_ORDER = Alignment("hold", "held"), Alignment("hold_first_order", "held")
ALIGNMENTS: dict[str, Alignment] = {
    "none": NONE,
    "decay": DECAY,
    "hold": HOLD,
    "hold_first_order": HOLD_FIRST_ORDER,
}
