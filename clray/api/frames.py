"""Data frames of ``pandas``, which is loaded where the first one is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clray.errors import ClrayError
from clray.extras import message

if TYPE_CHECKING:
    import pandas


class PandasMissing(ClrayError, ImportError):
    """pandas is not installed, and something asked for a data frame."""


def load_pandas() -> Any:
    """The package.

    Raises:
        PandasMissing: it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise PandasMissing(message("pandas", "a data frame", ["pandas"])) from None
    return pandas


def frame(
    columns: Mapping[str, Sequence[Any]], types: Mapping[str, str] | None = None, **attributes: str
) -> pandas.DataFrame:
    """A data frame.

    Args:
        columns: by name; all of one length.
        types: the types of some columns.
        attributes: what a reader must know about it, such as its units: kept in its ``attrs``.

    Raises:
        PandasMissing: pandas is not installed.
    """
    made = load_pandas().DataFrame(dict(columns)).astype(dict(types or {}))
    made.attrs.update(attributes)
    return made


def frame_of_rows(
    rows: Sequence[Mapping[str, Any]],
    numbers: Iterable[str] = (),
    counts: Iterable[str] = (),
    names: Sequence[str] = (),
    **attributes: str,
) -> pandas.DataFrame:
    """A data frame of dictionaries that have the same keys.

    Args:
        numbers: the columns of numbers, in which None becomes NaN.
        counts: the columns of whole numbers, in which None becomes ``<NA>``.
        names: the columns where there is no row.
    """
    keys = list(rows[0]) if rows else list(names)
    kinds = {**dict.fromkeys(numbers, "float64"), **dict.fromkeys(counts, "Int64")}
    types = {key: kind for key, kind in kinds.items() if key in keys}
    return frame({key: [row[key] for row in rows] for key in keys}, types, **attributes)
