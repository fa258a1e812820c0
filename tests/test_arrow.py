"""Arrow arrays made from bytes, beside those that pyarrow makes itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from clray.arrow import as_numpy, as_texts, floats, integers, repeated, texts

NAN = float("nan")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (integers([]), pa.array([], pa.int64())),
        (integers([3, -(2**63), 2**63 - 1]), pa.array([3, -(2**63), 2**63 - 1], pa.int64())),
        (integers([1, -2], 32), pa.array([1, -2], pa.int32())),
        (integers([np.int64(5), 6]), pa.array([5, 6], pa.int64())),
        (integers([1.0, np.float32(2)]), pa.array([1, 2], pa.int64())),
        (integers([np.uint64(1), 2]), pa.array([1, 2], pa.int64())),
        (floats([True, False]), pa.array([1, 0], pa.float64())),
        (floats([]), pa.array([], pa.float64())),
        (floats([1, 0.1, -0.0, np.float32(0.5), 1e308]), pa.array([1, 0.1, -0.0, 0.5, 1e308], pa.float64())),
        (texts([]), pa.array([], pa.string())),
        (texts(["", "é", "a\0b", "x" * 300]), pa.array(["", "é", "a\0b", "x" * 300], pa.string())),
        (repeated(["b", "a", "b"]), pa.array(["b", "a", "b"]).dictionary_encode()),
        (repeated([]), pa.array([], pa.string()).dictionary_encode()),
    ],
)
def test_arrays_are_those_of_pyarrow(made, expected):
    made.validate(full=True)
    assert made.equals(expected)
    assert made.type == expected.type


def test_numbers_that_are_none_stay():
    assert np.isnan(as_numpy(floats([NAN, float("inf")]))).tolist() == [True, False]


@pytest.mark.parametrize("values", [[1.5], [NAN], ["1"], [None], [True], [1, True], [[1]], [1, "x"], [2.0**53]])
def test_what_is_no_whole_number_is_refused(values):
    with pytest.raises((TypeError, ValueError)):
        integers(values)


@pytest.mark.parametrize("values", [["1"], [None], [[1.0]], ["x", 1.0], [1j], [2**53 + 1]])
def test_what_is_no_number_is_refused(values):
    with pytest.raises((TypeError, ValueError)):
        floats(values)


@pytest.mark.parametrize("make", [texts, repeated])
@pytest.mark.parametrize("value", [None, 1, b"a"])
def test_what_is_no_text_is_refused(make, value):
    with pytest.raises(TypeError):
        make(["a", value])


@pytest.mark.parametrize(
    ("read", "column"),
    [
        (as_numpy, pa.array([1, None, 3])),
        (as_numpy, pa.array([True, False])),
        (as_numpy, pa.array(["1"])),
        (as_texts, pa.array(["a", None])),
        (as_texts, pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))),
    ],
)
def test_columns_with_gaps_or_other_values_are_refused(read, column):
    with pytest.raises(ValueError, match=r"gaps"):
        read(column)


@pytest.mark.parametrize(("values", "bits"), [([2**31], 32), ([-(2**31) - 1], 32), ([2**63], 64), ([2**70], 64)])
def test_too_large_numbers_are_refused(values, bits):
    with pytest.raises((OverflowError, TypeError)):
        integers(values, bits)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint64(), pa.float32(), pa.float64(), pa.float16()])
def test_columns_come_back_whatever_their_type_and_chunks(kind):
    values = np.array([1, 2, 3, 4, 5])
    chunks = pa.chunked_array([pa.array(values[:2], kind), pa.array(values, kind)[3:4], pa.array([], kind)])
    assert as_numpy(chunks).tolist() == [1, 2, 4]
    assert as_numpy(chunks).dtype == chunks.to_numpy().dtype
    assert as_numpy(pa.array(values, kind).slice(1, 3)).tolist() == [2, 3, 4]
    assert as_numpy(pa.chunked_array([], kind)).tolist() == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_come_back(kind):
    first, second = (pa.array(values).cast(kind) for values in (["a", "b", "a"], ["é", "b"]))
    numbers, names = as_texts(pa.chunked_array([first[1:], second]))
    assert [names[i] for i in numbers] == ["b", "a", "é", "b"]
    assert len(set(names)) == len(names)


def test_a_records_way_to_disk_and_back_does_not_import_pandas(tmp_path):
    """It takes a third of a second, and nothing of clray needs it."""
    pytest.importorskip("pandas")
    code = f"""
import sys
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.record import Record
from clray.store import Store
from clray import reference_runs
trial = load_sweep("mer/rotations").cells[0].trial
found = [Measurement(1, t, t - 1, "accuracy", 0.5) for t in range(1, 21)]
data = {{"name": "mnist", "source": "files", "fingerprint": "0" * 16}}
store = Store({str(tmp_path)!r})
store.write(Record(trial.id("0" * 16), trial, data, found, {{}}, status="running"))
assert [len(r.measurements) for r in store.records("running")[0]] == [20]
assert reference_runs.read("mer_rotations")[0].measurements
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
