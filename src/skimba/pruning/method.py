"""A method of pruning as a value, and the named ones: the paper's, its rivals as published (their tokens on the condensed
sequence), and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from skimba.pruning.by_score import Drop, Hybrid, Merge
from skimba.pruning.choices import choose, named
from skimba.pruning.pairs import Pairs
from skimba.pruning.plain import (
    alignment_from_plain,
    alignment_name,
    alignment_to_plain,
    reduction_from_plain,
    reduction_to_plain,
)
from skimba.pruning.reduction import Own, Reduction, Stage
from skimba.pruning.schedule import COUNTS, read_stages
from skimba.tokens import ALIGNMENTS, DECAY, HOLD, NONE, Alignment, Tokens

Counts = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Method:
    """How tokens are chosen, removed and made up for.

    Attributes:
        reduction: :class:`Drop`, :class:`Merge`, :class:`Pairs`, :class:`Hybrid`, or a function ``(tokens, stage) -> tokens``
            of your own (see :class:`~skimba.pruning.Stage`).
        align: what scans and convolutions do about missing positions: ``NONE``, ``DECAY``, ``HOLD`` (by name too) or an
            :class:`~skimba.tokens.Alignment` of your own.
        counts: None: the schedule says how many tokens stay, the same number in every image. ``"mass"``: it says the share of the
            weight that stays, so that each image keeps its own number of tokens, and FLOPs depend on the images; or a function
            ``(weight (b m), share) -> (b)``.
        stages: after which blocks, where a schedule is found for a target: a key of ``STAGES`` or block numbers.
        head_only: whether the last block computes only what the head reads of it: where that is the class token (Vim), no
            other token's gate and output, and each scan only as far as the class token. Logits are the same, to rounding, for
            fewer FLOPs; ``forward_features`` still gives all tokens.

    ``name`` is that of a method in :data:`METHODS`; ``dataclasses.replace`` of it has none.

    Raises:
        ValueError: an unknown name, parts that do not go together, or a setting without effect.
        TypeError: a part of another kind.
    """

    reduction: Reduction | Callable[[Tokens, Stage], Tokens] = Drop()  # noqa: RUF009, frozen
    align: Alignment | str = NONE
    counts: str | Counts | None = None
    stages: str | tuple[int, ...] = "quarters"
    head_only: bool = False
    name: str | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        part = self.reduction
        if not isinstance(part, Reduction):
            if isinstance(part, type) or not callable(part):
                raise TypeError(f"a reduction is Drop(), Merge(), Pairs(), Hybrid() or a function, got {part!r}")
            object.__setattr__(self, "reduction", Own(part))
        if not isinstance(self.align, Alignment):
            object.__setattr__(self, "align", _alignment(self.align))
        if self.counts is not None:
            object.__setattr__(self, "counts", named(COUNTS, self.counts, "counts"))
            if not self.part.weighs:
                raise ValueError(
                    f"{type(self.part).__name__} weighs no tokens, so counts must be None, got {self.counts!r}"
                )
        object.__setattr__(self, "stages", read_stages(self.stages))
        if not isinstance(self.head_only, bool):
            raise TypeError(f"head_only must be True or False, got {self.head_only!r}")
        self.part.check(self.alignment)

    @property
    def part(self) -> Reduction:
        """The reduction."""
        assert isinstance(self.reduction, Reduction)
        return self.reduction

    @property
    def alignment(self) -> Alignment:
        """The alignment."""
        assert isinstance(self.align, Alignment)
        return self.align

    @property
    def functions(self) -> list[str]:
        """Names of the parts that are user-defined functions."""
        return [*self.part.functions, *(["counts"] if callable(self.counts) else [])]

    def image_counts(self, weight: Tensor, share: float) -> Tensor:
        """``(b)`` how many tokens each image keeps by its weights ``(b m)``."""
        found: Tensor = choose(COUNTS, self.counts, "counts")(weight, share)
        return found

    def __str__(self) -> str:
        parts = [str(self.reduction), f"align={alignment_name(self.alignment) or self.alignment!r}"]
        parts += [f"counts={self.counts!r}"] * (self.counts is not None) + ["head_only"] * self.head_only
        return f"{self.name or 'own method'}: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Name and parts as plain data for JSON or TOML.

        Raises:
            ValueError: a part is a user-defined function.
        """
        if self.functions:
            raise ValueError(f"only named parts can be written down, got a function as {', '.join(self.functions)}")
        found: dict[str, Any] = {} if self.name is None else {"name": self.name}
        found |= {"reduction": reduction_to_plain(self.part), "align": alignment_to_plain(self.alignment)}
        found |= {} if self.counts is None else {"counts": self.counts}
        stages = self.stages if isinstance(self.stages, str) else list(self.stages)
        return {**found, "stages": stages, "head_only": self.head_only}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Method:
        """The method that :meth:`to_dict` wrote. What is left out is as in the method of that ``name``, or the default.

        Raises:
            ValueError, TypeError: not such a table.
        """
        if not isinstance(plain, Mapping):
            raise TypeError(f"a method is a table of its parts, got {plain!r}")
        known = [f.name for f in fields(cls)]
        if unknown := [key for key in plain if key not in known]:
            raise ValueError(f"a method has {', '.join(known)}; got {unknown[0]!r}")
        name = plain.get("name")
        if "reduction" in plain:  # a file: it says all of its method, whatever the name stands for by now
            parts = {key: READ.get(key, lambda value: value)(value) for key, value in plain.items() if key != "name"}
            return with_name(name, cls(**parts))
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}; or give a reduction")
        changes = {key: READ.get(key, lambda value: value)(value) for key, value in plain.items() if key != "name"}
        found = replace(METHODS[name], **changes)
        return METHODS[name] if found == METHODS[name] else found


def with_name(name: str | None, method: Method) -> Method:
    """The same method under a name."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a method's name is text, got {name!r}")
    found = replace(method)
    object.__setattr__(found, "name", name)
    return found


def find_method(given: Method | str) -> Method:
    """A method by its name, or itself.

    Raises:
        ValueError, TypeError: an unknown name; neither a name nor a method.
    """
    if isinstance(given, Method):
        return given
    if not isinstance(given, str):
        hint = f"; did you mean Method({given!r})?" if isinstance(given, Reduction) else ""
        raise TypeError(f"method is a name ({', '.join(METHODS)}) or a skimba.Method, got {given!r}{hint}")
    if given not in METHODS:
        raise ValueError(f"unknown method {given!r}; known: {', '.join(METHODS)}, or a skimba.Method")
    return METHODS[given]


def _alignment(given: Any) -> Alignment:
    if isinstance(given, str) and given in ALIGNMENTS:
        return ALIGNMENTS[given]
    wrong = ValueError if isinstance(given, str) else TypeError
    raise wrong(f"align is one of {', '.join(ALIGNMENTS)} or a skimba Alignment, got {given!r}")


READ: dict[str, Callable[[Any], Any]] = {"reduction": reduction_from_plain, "align": alignment_from_plain}
METHODS: dict[str, Method] = {
    name: with_name(name, method)
    for name, method in {
        # Ours: every position keeps an owner; step and convolution follow; the neighbours that cost least merge, early; what
        # nobody reads is not computed.
        "hold": Method(
            Pairs("snake", "ward_near", partners="near_of_many"), align=HOLD, stages="early", head_only=True
        ),
        # The same as clips have it best, chosen on 250 training clips of moving items.
        "hold_clips": Method(Pairs("snake", "ward_near", partners="near"), align=HOLD, stages="first", head_only=True),
        # Zhan et al., "Exploring Token Pruning in Vision State Space Models", NeurIPS 2024.
        "top": Method(Drop("clip"), align=DECAY),
        # The same without its alignment; with this score it is also EViT (below) in scan order.
        "condensed": Method(Drop("clip"), align=NONE),
        # Rivals. EViT (arXiv 2202.07800) without its fused token, scored by clip since these models have no attention.
        "evit": Method(Drop("clip", order="score")),
        # ToMe (arXiv 2210.09461); its metric, the attention keys, becomes the stream.
        "tome": Method(Pairs("sequence", "cosine", once=True, order="sides"), stages="every"),
        # R-MeeTo (arXiv 2412.12496), the class token at its true place.
        "r_meeto": Method(Pairs("sequence", "hidden", once=True), stages="even"),
        # ToR (arXiv 2410.14725).
        "tor": Method(Hybrid("clip")),
        # MTR (arXiv 2507.14042): the time step as score, the rest merged into the most similar.
        "mtr": Method(Merge("delta")),
        # In the spirit of STORM (arXiv 2606.19932).
        "local": Method(Pairs("sequence", "local", once=True)),
        # DyVM (arXiv 2504.04787): to be trained; without its choice of directions, the class token at its true place.
        "dyvm": Method(Drop("learned")),
        "random": Method(Drop("random")),
        "uniform": Method(Drop("even")),
    }.items()
}
