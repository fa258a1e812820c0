"""The cores and the memory of this machine: how many are given to this process, and how it uses them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path


def cores_of_machine() -> int:
    """The number of logical cores that the machine has."""
    return os.cpu_count() or 1


def cores_given() -> int:
    """The number of cores that this process may use: by its affinity (``taskset``, cpusets) and its cgroup's quota.

    A quota of a part of a core counts as the whole cores in it, but at least as one.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS has no affinity
        cores = cores_of_machine()
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def set_threads(threads: int) -> None:
    """Limit this process to its trial's threads: without a limit, libraries use every core and get slower."""
    from threadpoolctl import threadpool_limits

    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)  # for libraries that are loaded later; loaded ones do not read it again
    threadpool_limits(threads)
    # A trial on the fused kernels may need no torch at all: importing it costs seconds and a quarter of a gigabyte.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def resident_bytes() -> int | None:
    """The resident memory of this process, in bytes: all that it has in the machine's memory, shared libraries too.

    None where the system does not tell it.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:  # macOS
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, timeout=10)
        return int(told.stdout) * 1024
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def return_free_memory() -> None:
    """Give memory that this process has freed back to the system, which else counts as resident."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has this function
        ctypes.CDLL(None).malloc_trim(0)


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of two options of glibc's ``mallopt``."""
_KEPT_BLOCK, _KEPT = 256 * 2**20, 512 * 2**20
"""Bytes: the largest block that is kept for further use, and how much freed memory at the end of the heap is."""


def keep_freed_memory() -> None:
    """Keep the memory that this process frees for its own further use.

    Every step of a network frees its tensors and takes others of the same sizes. By default glibc gives large blocks
    back to the system each time, and the system clears pages for the next ones. Where the C library is another one,
    nothing is changed.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def cgroup_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The CPU quota of this process's cgroup, in cores; None where there is none. Versions 1 and 2 are read.

    A quota of any cgroup above counts too. Within a container the path of the membership may be the one outside, which
    is not mounted: then the mounted root is the container's own cgroup.

    Args:
        membership: the file that names the process's cgroups.
        root: where the cgroup file system is mounted.
    """
    quotas = []
    for folder in _cgroups(membership, root):
        with contextlib.suppress(OSError, ValueError):
            quotas.append(_quota(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroups(membership: Path, root: Path) -> list[Path]:
    """Every mounted folder that may hold a quota for this process: its own cgroups, and all above them."""
    with contextlib.suppress(OSError, ValueError):
        lines = membership.read_text().splitlines()
        found = []
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                mounts = [root, root / "unified"]
            elif "cpu" in controllers.split(","):
                mounts = [root / controllers, root / "cpu"]
            else:
                continue
            inside = Path(path.lstrip("/"))
            found += [mount / part for mount in mounts for part in (inside, *inside.parents)]
        return list(dict.fromkeys(found))
    return []


def _quota(folder: Path) -> float | None:
    """The quota that one cgroup sets, in cores; None where it sets none. Raises OSError, ValueError without files."""
    if (second := folder / "cpu.max").exists():
        quota, _, period = second.read_text().strip().partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
