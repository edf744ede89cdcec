"""Insight into a model: what its pruning keeps, stage by stage."""

from skimba.insight.trace import trace

__all__ = ["trace"]
