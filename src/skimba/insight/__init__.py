"""Insight into a model, dense or pruned, without touching it: what its scans read and how long they remember, what speaks for a
class, what pruning keeps and what it changes.

Positions are those of the full sequence: patches in raster order, extra tokens (a class token, registers) at their places among
them. Blocks are counted from 1. Pictures of all this: :mod:`skimba.insight.drawing`, :mod:`skimba.insight.plots`.
"""

from skimba.insight.attention import Attention, ChannelAttention, channel_attention, hidden_attention
from skimba.insight.changes import Changes, pruning_changes
from skimba.insight.memory import ScanTimes, pace, scan_times
from skimba.insight.places import position_of_patch
from skimba.insight.receptive_field import area, receptive_field
from skimba.insight.relevance import Relevance, relevance, rollout
from skimba.insight.trace import trace

__all__ = [
    "Attention",
    "Changes",
    "ChannelAttention",
    "Relevance",
    "ScanTimes",
    "area",
    "channel_attention",
    "hidden_attention",
    "pace",
    "position_of_patch",
    "pruning_changes",
    "receptive_field",
    "relevance",
    "rollout",
    "scan_times",
    "trace",
]
