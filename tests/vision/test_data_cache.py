"""Files are checked and decoded once: notes and decoded arrays, damaged, stale, shared or missing; `clray data`."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_formats import Cifar, assert_equal
from typer.testing import CliRunner
from waiting import GUARD

from clray.cli import app
from clray.errors import DataError
from clray.vision import data
from clray.vision.datasets import cache, cifar

load = inspect.unwrap(data.load)  # a process reads each data set once: here it is read every time


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Cifar, Path]:
    made = Cifar(100)
    return made, made.write("parquet", tmp_path_factory.mktemp("written"))


@pytest.fixture
def small(tmp_path, monkeypatch, written) -> Cifar:
    """A CIFAR-100 of 300 images, in Parquet files below ``CLRAY_DATA``."""
    made = copy.copy(written[0])
    monkeypatch.setattr(cifar, "COUNTS", made.counts)
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
    make_known(monkeypatch, made.whole.fingerprint)
    shutil.copytree(written[1], tmp_path / "data" / "cifar100")
    return made


def make_known(monkeypatch: pytest.MonkeyPatch, fingerprint: str | None) -> None:
    published = data.PUBLISHED["cifar100"]
    forms = tuple(dataclasses.replace(form, fingerprint=fingerprint) for form in published.forms)
    monkeypatch.setitem(data.PUBLISHED, "cifar100", dataclasses.replace(published, forms=forms))


@pytest.fixture
def decodings(monkeypatch) -> list[Path]:
    """The files that were decoded since."""
    read, seen = cifar._parquet, []

    def counted(path: Path, label: str) -> Any:
        seen.append(path)
        return read(path, label)

    monkeypatch.setattr(cifar, "_parquet", counted)
    return seen


def kept(tmp_path: Path) -> Path:
    (folder,) = (p for p in (tmp_path / "cache" / "decoded").iterdir() if p.is_dir())
    return folder


class TestOnce:
    def test_files_are_decoded_once(self, small, decodings):
        found = data.locate("cifar100")
        assert len(decodings) == 2
        assert data.locate("cifar100") == found
        assert_equal(load(found), small.whole)
        assert_equal(load(found), small.whole)
        assert len(decodings) == 2

    def test_arrays_are_mapped_and_read_only(self, small):
        images = load(data.locate("cifar100"))
        assert type(images.train_images) is np.ndarray
        assert isinstance(images.train_images.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images.train_images[0] = 0

    def test_another_form_of_the_same_content_is_not_decoded_again(self, small, tmp_path, decodings):
        found = data.locate("cifar100")
        for file in (tmp_path / "data" / "cifar100").iterdir():
            file.unlink()
        assert_equal(load(found), small.whole)  # the content is known by its fingerprint
        assert len(decodings) == 2

    def test_a_file_with_another_time_is_read_again(self, small, tmp_path, decodings):
        data.locate("cifar100")
        path = tmp_path / "data" / "cifar100" / "test.parquet"
        os.utime(path, ns=(1, 1))
        data.locate("cifar100")
        assert len(decodings) == 4

    def test_a_changed_file_is_noticed(self, small, tmp_path):
        data.locate("cifar100")
        path = tmp_path / "data" / "cifar100" / "test.parquet"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DataError, match=r"test\.parquet: torn or foreign"):
            data.locate("cifar100")

    def test_changed_content_without_a_known_fingerprint_is_another_content(self, small, tmp_path, monkeypatch):
        make_known(monkeypatch, None)
        first = data.locate("cifar100")
        small.images = 255 - small.images
        small.write("parquet", tmp_path / "data")
        second = data.locate("cifar100")
        assert first["fingerprint"] != second["fingerprint"]
        assert_equal(load(first), small.whole)  # still here, decoded
        assert load(second).train_images[0, 0, 0, 0] == 255 - small.whole.train_images[0, 0, 0, 0]

    def test_another_content_than_the_trial_s_is_refused(self, small, monkeypatch):
        make_known(monkeypatch, None)
        found = data.locate("cifar100")
        with pytest.raises(DataError, match="holds other content than 0123456789abcdef"):
            load({**found, "fingerprint": "0123456789abcdef"})


class TestTornCache:
    @pytest.mark.parametrize("array", ["train_images", "test_labels"])
    @pytest.mark.parametrize("spoil", ["cut", "remove", "flip"])
    def test_torn_arrays_are_decoded_anew(self, small, tmp_path, decodings, array, spoil):
        found = data.locate("cifar100")
        path = kept(tmp_path) / f"{array}.npy"
        raw = bytearray(path.read_bytes())
        if spoil == "cut":
            path.write_bytes(raw[:-10])
        elif spoil == "remove":
            path.unlink()
        else:
            raw[-1] ^= 1
            path.write_bytes(raw)
        assert_equal(load(found), small.whole)
        assert len(decodings) == 4
        assert_equal(load(found), small.whole)  # and they are whole again
        assert len(decodings) == 4

    @pytest.mark.parametrize("note", ["", "[]", "{}", '{"train_images": 3}', None])
    def test_a_torn_note(self, small, tmp_path, decodings, note):
        found = data.locate("cifar100")
        path = kept(tmp_path) / "note.json"
        path.unlink() if note is None else path.write_text(note)
        assert_equal(load(found), small.whole)
        assert len(decodings) == 4

    def test_torn_notes_of_checked_files(self, small, tmp_path, decodings):
        data.locate("cifar100")
        for note in (tmp_path / "cache" / "notes").iterdir():
            note.write_text("{")
        assert data.locate("cifar100")["fingerprint"] == small.whole.fingerprint

    def test_a_copied_cache_is_believed_by_its_sums(self, small, tmp_path, decodings):
        found = data.locate("cifar100")
        for file in kept(tmp_path).iterdir():
            os.utime(file, ns=(1, 1))
        assert_equal(load(found), small.whole)
        assert len(decodings) == 2

    def test_a_flipped_bit_that_left_no_trace_is_found_by_verify(self, small, tmp_path):
        found = data.locate("cifar100")
        path = kept(tmp_path) / "train_images.npy"
        times, raw = path.stat(), bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert data.verify("cifar100") == found
        assert_equal(load(found), small.whole)

    def test_what_a_killed_process_left_is_removed_after_days(self, small, tmp_path):
        old, new = (tmp_path / "cache" / "decoded" / f"cifar100-x.tmp-{n}" for n in ("old", "new"))
        for left in (old, new):
            left.mkdir(parents=True)
        os.utime(old, (0, 0))
        data.locate("cifar100")
        assert (old.exists(), new.exists()) == (False, True)


class TestNoCache:
    def test_a_cache_that_cannot_be_written_costs_only_time(self, small, tmp_path, monkeypatch, decodings):
        (tmp_path / "file").write_text("not a folder")
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "file" / "cache"))
        found = data.locate("cifar100")
        assert_equal(load(found), small.whole)
        assert len(decodings) == 4

    def test_a_full_disk_leaves_nothing(self, small, tmp_path, monkeypatch):
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", full)
        assert_equal(load(data.locate("cifar100")), small.whole)
        assert not [p for p in (tmp_path / "cache" / "decoded").iterdir() if p.is_dir()]


PROCESS = """
import sys
sys.path.insert(0, "tests/vision")
from clray.vision import data
from clray.vision.datasets import cifar
import dataclasses
cifar.COUNTS = (200, 100)
published = data.PUBLISHED["cifar100"]
forms = tuple(dataclasses.replace(form, fingerprint=None) for form in published.forms)
data.PUBLISHED["cifar100"] = dataclasses.replace(published, forms=forms)
sys.stdin.readline()
found = data.locate("cifar100")
print(found["fingerprint"], data.load(found).fingerprint)
"""


class TestAtOnce:
    def test_processes_do_not_harm_each_other(self, small, tmp_path):
        """Four begin together on an empty cache; each reads the whole content, and one decoded copy is left."""
        root = Path(__file__).parents[2]
        ready = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        for process in ready:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        said = {process.communicate(timeout=GUARD)[0].strip() for process in ready}
        assert said == {f"{small.whole.fingerprint} {small.whole.fingerprint}"}
        assert sorted(p.name for p in kept(tmp_path).iterdir()) == [
            "note.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy",
        ]  # fmt: skip

    def test_without_locks_too(self, small, tmp_path, monkeypatch):
        """On a file system that knows no locks: threads that write the same content over torn content."""
        found = data.locate("cifar100")
        (kept(tmp_path) / "train_images.npy").write_bytes(b"torn")
        read: list[Any] = []

        def write() -> None:
            read.append(cache.keep_decoded("cifar100", found["fingerprint"], small.whole))

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read) == 8
        for images in (*read, cache.decoded("cifar100", found["fingerprint"], thoroughly=True)):
            assert_equal(images, small.whole)
        assert len([p for p in (tmp_path / "cache" / "decoded").iterdir() if p.is_dir()]) == 1

    def test_who_waited_reads_what_was_decoded(self, small, decodings):
        threads = [threading.Thread(target=data.locate, args=("cifar100",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(decodings) == 2


class TestCommands:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["data", *arguments], catch_exceptions=True)

    def test_list_says_what_is_here_and_where_the_rest_comes_from(self, small, tmp_path):
        shown = self.run("list").output
        assert f"cifar100: CLRAY_DATA: {tmp_path / 'data' / 'cifar100'}\n  train.parquet, test.parquet\n" in shown
        assert "cifar10: not here: clray data fetch cifar10\n  cifar-10-python.tar.gz from https://" in shown
        assert "mini-imagenet: not here\n  download it from https://www.kaggle.com/" in shown
        assert "cub: not here: clray data fetch cub\n  CUB_200_2011.tgz from https://data.caltech.edu/" in shown

    def test_list_goes_on_after_an_incomplete_set(self, small, tmp_path):
        (tmp_path / "data" / "cifar100" / "test.parquet").unlink()
        shown = self.run("list").output
        assert f"cifar100: {tmp_path / 'data' / 'cifar100'}: incomplete: missing test.parquet" in shown
        assert "cub: not here" in shown

    def test_verify_one(self, small):
        shown = self.run("verify", "cifar100").output
        assert shown == (
            f"cifar100: from CLRAY_DATA: every file is as published, fingerprint {small.whole.fingerprint}\n"
        )

    def test_verify_one_that_is_not_here(self, small):
        result = self.run("verify", "svhn")
        assert isinstance(result.exception, DataError)

    def test_verify_all_that_are_here(self, small, tmp_path):
        assert self.run("verify").output.count("\n") == 1
        (tmp_path / "data" / "mnist").mkdir()
        (tmp_path / "data" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"torn")
        result = self.run("verify")
        assert result.exit_code == 1
        assert "mnist: incomplete: missing" in result.output
        assert "cifar100: from CLRAY_DATA: every file is as published" in result.output

    def test_fetch_what_cannot_be_fetched(self, small):
        result = self.run("fetch", "mini-imagenet")
        assert isinstance(result.exception, DataError)


# --------------------------------------------------------------------------------------------------------------
# The real files, where CLRAY_DATA names a folder that has them


@pytest.fixture(scope="session")
def real() -> str:
    if not os.environ.get("CLRAY_DATA"):
        pytest.skip("needs the published files: set CLRAY_DATA to a folder that holds them")
    return os.environ["CLRAY_DATA"]


def needs(name: str) -> None:
    if data.find(name) is None:
        pytest.skip(f"CLRAY_DATA holds no {name}")


@pytest.mark.slow
def test_the_real_cifar100(real, decodings):
    needs("cifar100")
    found = data.locate("cifar100", "files")
    assert found["fingerprint"] == "7d33c686d16e0732"
    decoded = len(decodings)
    assert data.locate("cifar100", "files") == found
    images = load(found)
    assert len(decodings) == decoded, "it is decoded once"
    assert images.train_images.shape == (50_000, 3, 32, 32)
    assert np.bincount(images.train_labels).tolist() == [500] * 100
    assert np.bincount(images.test_labels).tolist() == [100] * 100
    assert images.train_labels[:5].tolist() == [19, 29, 0, 11, 1]  # as the official pickle begins
    json.dumps(found)


def test_the_real_fashion_mnist(real):
    needs("fashion-mnist")
    images = load(data.locate("fashion-mnist", "files"))
    assert images.image_shape == (1, 28, 28)
    assert np.bincount(images.train_labels).tolist() == [6_000] * 10
    assert np.bincount(images.test_labels).tolist() == [1_000] * 10


def test_the_real_notmnist(real):
    needs("notmnist")
    found = data.locate("notmnist")
    images = load(found)
    tested = 1_000 if "partial" in found else 1_872
    assert (len(images.train_labels), len(images.test_labels)) == (9 * tested + ("partial" not in found) * 4, tested)
    assert set(images.test_labels.tolist()) == set(range(10))
