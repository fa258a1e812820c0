"""Reads published pickles without running code from them.

A pickle can name any callable and call it. These data sets need only arrays, text, numbers and plain containers, so
everything else is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import IO, Any

import numpy as np


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode(text, 'latin1')``, with which Python 3 writes bytes into the older protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed in a data file")
    return text.encode("latin1")


def _numpy_parts() -> dict[tuple[str, str], Any]:
    from numpy._core.multiarray import _reconstruct, scalar
    from numpy._core.numeric import _frombuffer  # type: ignore[attr-defined]

    parts: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        parts[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        parts[f"{core}.multiarray", "scalar"] = scalar
        parts[f"{core}.numeric", "_frombuffer"] = _frombuffer
    return parts


class _Unpickler(pickle.Unpickler):
    """Loads arrays and plain containers that Python 2 or Python 3 wrote."""

    allowed = {
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
        ("builtins", "bytearray"): bytearray,
        ("__builtin__", "bytearray"): bytearray,
        ("builtins", "range"): range,
        ("__builtin__", "xrange"): range,
        **_numpy_parts(),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file has no need of") from None


def read_pickle(file: IO[bytes]) -> Any:
    """Load the object in a pickle of arrays and plain containers; byte strings of Python 2 become text.

    Raises:
        pickle.UnpicklingError: the pickle needs anything else. A damaged pickle can raise nearly any error.
    """
    return _Unpickler(file, encoding="latin1").load()
