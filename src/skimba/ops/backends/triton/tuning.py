"""How the Triton kernels are cut into programs: one table.

The figures follow from registers, shared lanes and bytes (``tests/ops/interpreted`` and ``tests/ops/test_triton_compiled.py``
hold what they promise). No GPU has timed them yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Configuration:
    """Of one kernel.

    Attributes:
        channels: in a program's tile; 0: all.
        warps: of 32 lanes, that run a program.
        rows: tokens or positions in a program's tile, where a program takes several at once.
        steps: of the scan between two saved states (backward), or in a segment (small batches).
        registers: a thread has at most so many. With None the compiler chooses, and may spill a few so that more warps fit.
        programs: with fewer than this, the scan is cut into segments; of the norm's gradient at most so many.
    """

    channels: int
    warps: int
    rows: int = 1
    steps: int = 0
    registers: int | None = None
    programs: int = 0


CONFIGURATIONS: dict[str, Configuration] = {
    # One warp each, so that sums over states or channels stay within it. Wide: every tile reads B and C again.
    "scan": Configuration(channels=64, warps=1, steps=32, programs=512),
    # The states of 8 steps are 16 KiB, and stay in the caches.
    "scan_backward": Configuration(channels=32, warps=1, steps=8),
    # With exact hold half as wide: the derivatives of its sum take registers too.
    "scan_backward_held": Configuration(channels=16, warps=1, steps=8, registers=255),
    "convolution": Configuration(channels=64, warps=4, rows=16, registers=96),
    "convolution_backward": Configuration(channels=64, warps=4, rows=16),
    "norm": Configuration(channels=0, warps=4, rows=2),
    # As few programs as keep a GPU busy: each leaves one partial sum of the weight's gradient.
    "norm_backward": Configuration(channels=0, warps=4, rows=2, programs=512),
}
