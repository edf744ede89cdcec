"""The one thing that travels through a model: its tokens, and where they sit in the full sequence.

Letters, for the whole library: ``b`` images, ``l`` tokens now in the sequence, ``L`` positions of the full sequence,
``d`` model width, ``e`` inner width (scan channels), ``n`` state size, ``r`` rank of the time step, ``k`` kernel size,
``h w`` grid, ``t`` frames, ``c`` image channels, ``m`` image tokens, ``x`` extra tokens (a class token, registers). In code
the two lengths are ``length`` and ``full_length``.
"""

from skimba.tokens.alignment import (
    ALIGNMENTS,
    CONV_RULES,
    DECAY,
    HOLD,
    HOLD_FIRST_ORDER,
    NONE,
    SCAN_RULES,
    Alignment,
    ConvRule,
    ScanRule,
)
from skimba.tokens.gathers import flat_rows, group_sum, take
from skimba.tokens.groups import Groups
from skimba.tokens.layout import Layout, ScanOrder
from skimba.tokens.restore import RESTORE, Restore, Shown, start_restore
from skimba.tokens.tokens import ScanRecord, Tokens

__all__ = [
    "ALIGNMENTS",
    "CONV_RULES",
    "DECAY",
    "HOLD",
    "HOLD_FIRST_ORDER",
    "NONE",
    "RESTORE",
    "SCAN_RULES",
    "Alignment",
    "ConvRule",
    "Groups",
    "Layout",
    "Restore",
    "ScanOrder",
    "ScanRecord",
    "ScanRule",
    "Shown",
    "Tokens",
    "flat_rows",
    "group_sum",
    "start_restore",
    "take",
]
