"""The lowest layer: atomic file writes, and several processes on one job."""
