"""Insight into a model: what its scans read, and what its pruning keeps, stage by stage."""

from skimba.insight.attention import Attention, ChannelAttention, channel_attention, hidden_attention
from skimba.insight.places import position_of_patch
from skimba.insight.trace import trace

__all__ = [
    "Attention",
    "ChannelAttention",
    "channel_attention",
    "hidden_attention",
    "position_of_patch",
    "trace",
]
