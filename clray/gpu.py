"""The GPU memory of a trial: its peak, and the share of a GPU that has room for it."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

CONTEXT_BYTES = 512 * 2**20
"""Memory that CUDA takes for each process besides what torch counts: about half a GiB on current GPUs."""
HEADROOM = 0.1
"""The part of its peak that a trial gets in addition, since the allocator's fragmentation differs from run to run."""
MAX_TRIALS_PER_GPU = 100
"""The upper bound on trials that share a GPU."""


def _cuda() -> Any:
    """``torch.cuda`` where this process has used a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def names() -> list[str]:
    """The names of the GPUs that torch can use in this process."""
    import torch

    return (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )


def device_files(folder: Path = Path("/dev")) -> list[str]:
    """The NVIDIA GPUs that the machine's kernel has, by their device files, whether torch can use them or not."""
    return sorted(file.name for file in folder.glob("nvidia[0-9]*"))


def why_unusable() -> str:
    """The reason why torch can use no GPU in this process."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return "the torch that is installed was built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    try:
        torch.cuda.init()
    except Exception as error:  # torch, CUDA and the driver raise errors of many types
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return "torch sees none"


def forget_peak() -> None:
    """Begin a new measurement of the peak, since a process runs several trials in turn."""
    if cuda := _cuda():
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()


def peak(before: dict[str, int] | None = None) -> dict[str, int]:
    """The most GPU memory that a trial took so far, in bytes; empty where this process has used no GPU.

    Args:
        before: the peak of earlier executions of the trial.

    Returns:
        ``reserved`` (by torch's allocator, so that other processes cannot use it), ``allocated`` (the part that tensors
        use), and the GPU's ``total``.
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
    """The number of trials with this peak that fit on one GPU; at least 1."""
    return max(1, min(MAX_TRIALS_PER_GPU, math.floor(1 / needed(memory))))


def words(memory: dict[str, int]) -> str:
    """A peak as text."""
    return f"{memory['reserved'] / 2**30:.2f} of {memory['total'] / 2**30:.0f} GiB GPU memory"


def share_words(share: float) -> str:
    """A share of a GPU as text."""
    if share == 1:
        return "a whole GPU"
    return f"{share:g} of a GPU" if 0 < share < 1 else f"{share:g} GPUs"


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's error that a GPU's memory ran out. The type is known by its name; torch need not be loaded."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
