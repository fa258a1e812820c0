"""A trial's GPU memory: what it took at most, and which share of a GPU that fits."""

from __future__ import annotations

import math
import sys
from typing import Any

CONTEXT_BYTES = 512 * 2**20
"""What CUDA takes for each process besides what torch counts; half a GiB is what it comes to on current GPUs."""
HEADROOM = 0.1
"""The part of its peak that a trial is given on top: the allocator's fragments differ from run to run."""
SMALLEST_SHARE = 100
"""Of more trials than this on one GPU nobody asks: they would wait for each other."""


def _cuda() -> Any:
    """``torch.cuda`` where this process has used a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def forget_peak() -> None:
    """Begin to measure anew: a process runs one trial after the other."""
    if cuda := _cuda():
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()


def peak(before: dict[str, int] | None = None) -> dict[str, int]:
    """The most GPU memory that a trial took so far, in bytes; empty where this process has used no GPU.

    Args:
        before: what earlier executions of the trial took.

    Returns:
        ``reserved`` (by torch's allocator: what others cannot use), ``allocated`` (of it, by tensors), and the GPU's
        ``total``.
    """
    before = before or {}
    cuda = _cuda()
    if cuda is None:
        return before
    reserved, allocated = cuda.max_memory_reserved(), cuda.max_memory_allocated()
    return {
        "reserved": max(reserved, before.get("reserved", 0)),
        "allocated": max(allocated, before.get("allocated", 0)),
        "total": cuda.get_device_properties(cuda.current_device()).total_memory,
    }


def needed(memory: dict[str, int]) -> float:
    """The part of its GPU that a trial with this peak needs, head-room and CUDA's own memory included."""
    return (memory["reserved"] * (1 + HEADROOM) + CONTEXT_BYTES) / memory["total"]


def sharers(memory: dict[str, int]) -> int:
    """How many trials with this peak one GPU has room for; at least 1."""
    return max(1, min(SMALLEST_SHARE, math.floor(1 / needed(memory))))


def words(memory: dict[str, int]) -> str:
    """A peak, for a line of text."""
    return f"{memory['reserved'] / 2**30:.2f} of {memory['total'] / 2**30:.0f} GiB GPU memory"


def share_words(share: float) -> str:
    """A share of a GPU, for a line of text."""
    if share == 1:
        return "a whole GPU"
    return f"{share:g} of a GPU" if 0 < share < 1 else f"{share:g} GPUs"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory ran out, said by torch. Told by name: whoever trains without torch need not load it."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
