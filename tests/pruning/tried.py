"""The methods that every property of pruning is tried with: all named ones, and their parts in pairs."""

import itertools
from dataclasses import replace

from skimba import HOLD, METHODS, NONE, Drop, Hybrid, Merge, Method, Pairs
from skimba.pruning import LIKENESS, OWNER, SCORE, SELECTION, WALK
from skimba.tokens import ALIGNMENTS

FAMILIES = ("vim", "plain_mamba")
REDUCTIONS = {
    "drop": Drop(),
    "merge": Merge(),
    "hybrid": Hybrid(),
    **{f"pairs-{walk}": Pairs(walk, "cosine") for walk in WALK},
}
KINDS = {"Drop": Drop, "Merge": Merge}
BY_LIKENESS = {
    "by-side": lambda likeness: Method(Pairs("sequence", likeness, order="sides")),
    "hold": lambda likeness: replace(METHODS["hold"], reduction=Pairs(likeness=likeness)),
}


def names(table):
    return {name: name for name in table}


def chessboard(first, second, make):
    """``{name: (method, family)}`` of all pairs of two parts, and the family that tries the pair by default: the fields of a
    chessboard, so that each part is tried on both families."""
    pairs = itertools.product(enumerate(first), enumerate(second))
    return {f"{a}-{b}": (make(first[a], second[b]), FAMILIES[(i + j) % 2]) for (i, a), (j, b) in pairs}


IN_PAIRS = {
    **chessboard(REDUCTIONS, ALIGNMENTS, Method),
    **chessboard(KINDS, names(SCORE), lambda kind, score: Method(kind(score), HOLD)),
    **chessboard(names(SELECTION), ALIGNMENTS, lambda selection, align: Method(Drop(selection=selection), align)),
    **chessboard(KINDS, names(OWNER), lambda kind, owner: Method(kind(owner=owner), HOLD)),
    **chessboard(names(WALK), names(LIKENESS), lambda walk, likeness: Method(Pairs(walk, likeness), NONE)),
    **chessboard(BY_LIKENESS, names(LIKENESS), lambda make, likeness: make(likeness)),
}
ALL = {
    **METHODS,
    "drop-by-score": Method(Drop(order="score")),
    "pairs-by-side": Method(Pairs("sequence", "cosine", order="sides")),
    **{name: method for name, (method, _) in IN_PAIRS.items()},
}
# What several pairs come to is tried once.
TRIED = {name: method for number, (name, method) in enumerate(ALL.items()) if method not in [*ALL.values()][:number]}
FAMILY = {id(method): family for method, family in IN_PAIRS.values()}  # the one family that tries a method by default
