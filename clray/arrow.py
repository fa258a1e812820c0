"""Arrow arrays from numbers and texts, and back, through their bytes.

pyarrow's own ways between Python or NumPy and Arrow first import pandas, where it is installed, to see if the values
are some of its own. That takes a third of a second of every command and every process, and clray has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""NumPy's names of Arrow's floats; those of integers are the same."""


_EXACT = 2**53
"""A 64-bit float holds all whole numbers up to this one."""


def integers(values: Sequence[Any], bits: int = 64) -> pa.Array:
    """Whole numbers as an array of signed integers; floats that are whole are taken, too.

    Raises:
        TypeError, ValueError, OverflowError: a value is no whole number, or needs more bits.
    """
    found = np.array(values) if len(values) else np.empty(0, np.int64)  # an empty array would be one of floats
    if found.ndim != 1 or found.dtype.kind not in "iuf" or any(isinstance(v, bool | np.bool_) for v in values):
        raise TypeError(f"expected whole numbers, and there are values of type {found.dtype}")
    if found.dtype.kind == "f" and not np.all((found == np.rint(found)) & (np.abs(found) < _EXACT)):
        raise ValueError("expected whole numbers, and there are others")
    most = 1 << (bits - 1)
    if len(found) and not -most <= int(found.min()) <= int(found.max()) < most:
        raise OverflowError(f"a whole number needs more than {bits} bits")
    return _array(found.astype(f"int{bits}"))


def floats(values: Sequence[Any]) -> pa.Array:
    """Numbers as an array of 64-bit floats; true and false are 1 and 0.

    Raises:
        TypeError, ValueError: a value is no number, or a whole number that a float does not hold.
    """
    found = np.array(values) if len(values) else np.empty(0)
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers, and there are values of type {found.dtype}")
    if found.dtype.kind in "iu" and len(found) and max(abs(int(found.min())), abs(int(found.max()))) > _EXACT:
        raise ValueError("a whole number is too large for a float")
    return _array(found.astype(np.float64))


def texts(values: Sequence[str]) -> pa.Array:
    """Texts as an array.

    Raises:
        TypeError: a value is no text.
        UnicodeEncodeError: a value is not one that UTF-8 has.
    """
    import pyarrow as pa

    if others := [value for value in values if not isinstance(value, str)]:
        raise TypeError(f"expected texts, and found {others[0]!r:.50}")
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def repeated(values: Sequence[str]) -> pa.Array:
    """Texts as an array that keeps each different one once, and its number wherever it stands.

    Raises:
        TypeError, UnicodeEncodeError: as of ``texts``.
    """
    import pyarrow as pa

    numbers = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return pa.DictionaryArray.from_arrays(integers([numbers[value] for value in values], 32), texts(list(numbers)))


def _array(values: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def as_numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column of integers or floats as a NumPy array.

    Raises:
        ValueError: it has gaps, or holds something else.
    """
    import pyarrow as pa

    array = _whole(column)
    if array.null_count or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise ValueError(f"expected numbers without gaps, and found {array.null_count} gaps in {array.type}")
    dtype = np.dtype(_NAMES.get(str(array.type), str(array.type)))
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]


def as_texts(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[Any], list[str]]:
    """A column of texts: the number of each entry's text, and the different texts.

    Raises:
        ValueError: it has gaps, or holds something else.
    """
    import pyarrow as pa

    encoded = _whole(column.cast(pa.string())).dictionary_encode()
    return as_numpy(encoded.indices), encoded.dictionary.to_pylist()


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
