"""The sources of image data: their order, checksums, damaged files, downloads."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import inspect
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clray.errors import DataError
from clray.vision import data
from clray.vision.datasets import embedded
from clray.vision.datasets.idx import idx_set
from clray.vision.datasets.published import Published

load = inspect.unwrap(data.load)  # a process reads each data set once: here it is read every time


def idx(array: np.ndarray) -> bytes:
    """A gzipped IDX file of unsigned bytes."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


RNG = np.random.default_rng(0)
FILES = {
    "train-images-idx3-ubyte.gz": idx(RNG.integers(0, 256, (6, 28, 28), np.uint8)),
    "train-labels-idx1-ubyte.gz": idx(RNG.integers(0, 10, 6).astype(np.uint8)),
    "t10k-images-idx3-ubyte.gz": idx(RNG.integers(0, 256, (4, 28, 28), np.uint8)),
    "t10k-labels-idx1-ubyte.gz": idx(RNG.integers(0, 10, 4).astype(np.uint8)),
}
"""A data set as small as can be, under MNIST's names."""


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def publish(monkeypatch: pytest.MonkeyPatch, mirrors: tuple[str, ...], files: dict[str, bytes] = FILES) -> Published:
    """Have ``mnist`` stand for these files at these addresses."""
    published = idx_set("http://origin/", {name: md5(content) for name, content in files.items()}, mirrors)
    monkeypatch.setitem(data.PUBLISHED, "mnist", published)
    return published


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch) -> None:
    """No data of this machine, and mirrors that nobody answers."""
    monkeypatch.delenv("CLRAY_DATA", raising=False)
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
    publish(monkeypatch, (f"http://127.0.0.1:{free_port()}/",))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def server(tmp_path) -> Iterator[Any]:
    """A mirror on this machine, and what it was asked for."""
    folder = write(tmp_path / "served")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    httpd.asked, httpd.folder = asked, folder  # type: ignore[attr-defined]
    httpd.address = f"http://127.0.0.1:{httpd.server_address[1]}/"  # type: ignore[attr-defined]
    yield httpd
    httpd.shutdown()
    httpd.server_close()


class TestOrder:
    def test_the_named_folder_then_the_cache_then_the_embedded_digits(self, tmp_path, monkeypatch):
        named, cache = write(tmp_path / "named" / "mnist").parent, write(tmp_path / "cache" / "mnist")
        monkeypatch.setenv("CLRAY_DATA", str(named))
        first = data.locate("mnist")
        assert (first["source"], "reason" in first) == ("CLRAY_DATA", False)
        shutil.rmtree(named / "mnist")
        second = data.locate("mnist")
        assert second["source"] == "cache"
        assert first["fingerprint"] == second["fingerprint"]  # the same content, wherever it lies
        shutil.rmtree(cache)
        third = data.locate("mnist")
        assert third["source"] == "embedded"
        assert third["reason"] == "its files are not here"
        assert third["fingerprint"] != first["fingerprint"]

    def test_embedded_asks_for_nothing_else(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "no such folder"))
        assert data.locate("mnist", "embedded")["source"] == "embedded"

    def test_nothing_else_is_embedded(self):
        with pytest.raises(DataError, match="svhn: no embedded set stands in for it; only mnist has one"):
            data.locate("svhn", "embedded")

    def test_a_set_that_is_not_here_says_what_to_do(self, tmp_path):
        with pytest.raises(DataError) as caught:
            data.locate("svhn")
        assert str(caught.value).endswith(f"nor in {tmp_path / 'cache' / 'svhn'}: clray data fetch svhn")

    def test_an_unknown_name(self):
        with pytest.raises(DataError, match="cifar: no such data set; there are mnist, "):
            data.locate("cifar")

    def test_files_insists(self, tmp_path):
        with pytest.raises(DataError) as caught:
            data.locate("mnist", "files")
        text = str(caught.value)
        assert text.startswith("mnist: its files are neither below CLRAY_DATA nor in ")
        assert str(tmp_path / "cache" / "mnist") in text
        assert text.endswith("clray data fetch mnist")

    def test_files_that_cannot_be_fetched_say_why(self):
        with pytest.raises(DataError, match="could not be downloaded"):
            data.locate("mnist", "files", download=True)

    def test_the_fingerprint_is_of_names_and_sums(self, monkeypatch):
        one = publish(monkeypatch, ())
        other = publish(monkeypatch, (), {**FILES, "t10k-labels-idx1-ubyte.gz": b"other"})
        assert one.fingerprint != other.fingerprint


class TestNamedFolder:
    def test_it_must_exist(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "nothing"))
        with pytest.raises(DataError, match=r"CLRAY_DATA=.*nothing: no such folder"):
            data.locate("mnist")

    def test_it_must_hold_all_of_a_data_set_or_none(self, tmp_path, monkeypatch):
        folder = write(tmp_path / "named" / "mnist")
        (folder / "t10k-labels-idx1-ubyte.gz").unlink()
        (folder / "train-images-idx3-ubyte.gz").unlink()
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "named"))
        write(tmp_path / "cache" / "mnist")  # who names a folder means it
        with pytest.raises(DataError, match=r"incomplete: missing train-images.*, t10k-labels"):
            data.locate("mnist")

    def test_a_foreign_file_is_never_read(self, tmp_path, monkeypatch):
        folder = write(tmp_path / "named" / "mnist")
        foreign = folder / "t10k-labels-idx1-ubyte.gz"
        foreign.write_bytes(b"another file")
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "named"))
        with pytest.raises(DataError) as caught:
            data.locate("mnist")
        assert str(caught.value).startswith(f"{foreign}: not the published file: md5 {md5(b'another file')}, expected ")

    def test_a_folder_without_the_data_set_leaves_the_other_sources(self, tmp_path, monkeypatch):
        (tmp_path / "named" / "cifar").mkdir(parents=True)
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "named"))
        assert data.locate("mnist")["source"] == "embedded"


class TestReading:
    def test_images_and_labels(self, tmp_path, monkeypatch):
        write(tmp_path / "cache" / "mnist")
        images = load(data.locate("mnist", "files"))
        raw = gzip.decompress(FILES["train-images-idx3-ubyte.gz"])
        assert images.train_images.shape == (6, 784)
        assert images.train_images.tobytes() == raw[16:]
        assert images.test_images.shape == (4, 784)
        assert images.test_labels.tolist() == list(gzip.decompress(FILES["t10k-labels-idx1-ubyte.gz"])[8:])
        assert images.train_labels.dtype == np.int64

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda raw: raw[: len(raw) // 2],
            lambda raw: b"",
            lambda raw: b"not gzip at all",
            lambda raw: gzip.compress(b"\0\0\x0d\x01\0\0\0\x06" + b"x" * 6),
            lambda raw: gzip.compress(gzip.decompress(raw)[:-5]),
        ],
        ids=["truncated", "empty", "not gzip", "not of bytes", "too short"],
    )
    def test_a_torn_file_is_one_error_that_names_it(self, tmp_path, monkeypatch, spoil):
        """Even where its checksum was published so."""
        files = {**FILES, "train-images-idx3-ubyte.gz": spoil(FILES["train-images-idx3-ubyte.gz"])}
        publish(monkeypatch, (), files)
        folder = write(tmp_path / "cache" / "mnist", files)
        with pytest.raises(DataError, match="torn or foreign: ") as caught:
            load(data.locate("mnist", "files"))
        assert str(folder / "train-images-idx3-ubyte.gz") in str(caught.value)

    def test_a_truncated_file_in_place_of_the_published_one(self, tmp_path, monkeypatch):
        folder = write(tmp_path / "named" / "mnist")
        name = "train-images-idx3-ubyte.gz"
        (folder / name).write_bytes(FILES[name][:-10])
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "named"))
        with pytest.raises(DataError, match="not the published file"):
            data.locate("mnist")

    def test_a_machine_without_the_same_content_says_so(self, tmp_path):
        write(tmp_path / "cache" / "mnist")
        found = data.locate("mnist", "files")
        with pytest.raises(DataError, match="not of a version this clray knows"):
            load({**found, "fingerprint": "0" * 16})
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(DataError, match="could not be downloaded"):
            load(found)


class TestEmbedded:
    def test_the_split(self):
        digits = load(data.locate("mnist", "embedded"))
        assert digits.train_images.shape == (4000, 784)
        assert digits.test_images.shape == (1000, 784)
        assert digits.train_images.dtype == np.uint8
        assert np.bincount(digits.train_labels).tolist() == [400] * 10
        assert np.bincount(digits.test_labels).tolist() == [100] * 10
        assert digits.train_images.max() == 255
        train = {image.tobytes() for image in digits.train_images}
        assert not any(image.tobytes() in train for image in digits.test_images)

    def test_another_version_of_them_is_an_error(self, monkeypatch):
        monkeypatch.setattr(embedded, "SHA256", "0" * 64)
        with pytest.raises(DataError, match="not the digits this clray knows"):
            load(data.locate("mnist", "embedded"))


class TestFetch:
    def test_it_ends_in_the_cache_checked(self, tmp_path, monkeypatch, server):
        publish(monkeypatch, (server.address,))
        assert data.fetch("mnist") == tmp_path / "cache" / "mnist"
        assert {f.name: f.read_bytes() for f in (tmp_path / "cache" / "mnist").iterdir()} == FILES
        assert data.locate("mnist")["source"] == "cache"

    def test_what_is_there_is_not_asked_for_again(self, monkeypatch, server):
        publish(monkeypatch, (server.address,))
        data.fetch("mnist")
        data.fetch("mnist")
        assert len(server.asked) == 4

    def test_a_dead_mirror_is_passed_over(self, monkeypatch, server):
        publish(monkeypatch, (f"http://127.0.0.1:{free_port()}/", server.address))
        data.fetch("mnist")
        assert data.present("mnist")[0] == "cache"

    def test_a_trial_fetches_what_it_may(self, monkeypatch, server):
        publish(monkeypatch, (server.address,))
        assert data.locate("mnist", "auto")["source"] == "embedded"
        assert not server.asked
        assert data.locate("mnist", "auto", download=True)["source"] == "cache"

    def test_a_foreign_file_is_not_kept(self, tmp_path, monkeypatch, server):
        (server.folder / "train-labels-idx1-ubyte.gz").write_bytes(b"foreign")
        publish(monkeypatch, (server.address,))
        with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz could not be downloaded"):
            data.fetch("mnist")
        assert not (tmp_path / "cache" / "mnist" / "train-labels-idx1-ubyte.gz").exists()
        found = data.locate("mnist", "auto", download=True)
        assert found["source"] == "embedded"
        assert found["reason"] == "train-labels-idx1-ubyte.gz could not be downloaded"

    def test_every_mirror_has_its_reason(self, monkeypatch):
        mirrors = tuple(f"http://127.0.0.1:{free_port()}/{n}/" for n in "ab")
        publish(monkeypatch, mirrors)
        with pytest.raises(DataError) as caught:
            data.fetch("mnist")
        assert all(f"{mirror}train-images-idx3-ubyte.gz: no connection" in str(caught.value) for mirror in mirrors)

    def test_a_file_that_the_mirror_lacks(self, monkeypatch, server):
        (server.folder / "t10k-labels-idx1-ubyte.gz").unlink()
        publish(monkeypatch, (server.address,))
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: 404 "):
            data.fetch("mnist")


class TestSeveral:
    @pytest.fixture
    def two(self, tmp_path, monkeypatch) -> list[str]:
        """``mnist`` here, and ``fashion-mnist``, spelt as a folder may be."""
        other = {**FILES, "t10k-labels-idx1-ubyte.gz": idx(np.arange(4).astype(np.uint8))}
        sums = {name: md5(content) for name, content in other.items()}
        monkeypatch.setitem(data.PUBLISHED, "fashion-mnist", idx_set("http://origin/", sums, ()))
        write(tmp_path / "cache" / "mnist")
        write(tmp_path / "named" / "fashion_mnist", other)
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "named"))
        return ["mnist", "fashion-mnist"]

    def test_they_are_one_set_of_sets(self, two):
        found = data.locate_all(two)
        assert found["name"] == "2-dataset"
        assert found["source"] == "cache, CLRAY_DATA"
        assert found["parts"] == [data.locate(name) for name in two]
        assert not {"partial", "unverified", "reason"} & set(found)
        images = data.load_all(found)
        assert list(images) == two
        assert images["fashion-mnist"].test_labels.tolist() == [0, 1, 2, 3]
        assert images["mnist"].image_shape == (1, 28, 28)

    def test_the_fingerprint_is_of_the_parts_in_their_order(self, two, tmp_path):
        found = data.locate_all(two)
        assert found["fingerprint"] != data.locate_all(two[::-1])["fingerprint"]
        shutil.rmtree(tmp_path / "cache" / "mnist")
        embedded = data.locate_all(two)
        assert embedded["fingerprint"] != found["fingerprint"]
        assert embedded["reason"] == "mnist: its files are not here"

    def test_all_of_them_must_be_here(self, two):
        with pytest.raises(DataError, match="svhn: its files are neither"):
            data.locate_all([*two, "svhn"])


def test_nothing_heavy_is_imported():
    heavy = ["torch", "scipy", "pyarrow", "PIL", "pooch", "requests", "pandas"]
    code = f"import sys, clray.vision.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_published_files(mnist, monkeypatch):
    """Only where CLRAY_DATA is set: the real ones pass their checks and have MNIST's sizes."""
    monkeypatch.undo()  # the named folder, and the real checksums
    found = data.locate("mnist", "files")
    assert found["fingerprint"] == mnist["fingerprint"]
    images = load(found)
    assert images.train_images.shape == (60000, 784)
    assert np.bincount(images.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


class TestReadOnce:
    def test_a_process_reads_a_set_once(self, monkeypatch):
        monkeypatch.setattr(data, "_kept", {})
        digits = data.locate("mnist", "embedded")
        first, again = data.load(digits), data.load(digits)
        assert first is again
        with pytest.raises(ValueError, match="read-only"):
            first.train_images[0, 0] = 1

    def test_large_sets_are_not_kept(self, monkeypatch):
        monkeypatch.setattr(data, "_kept", {})
        digits = data.locate("mnist", "embedded")
        monkeypatch.setattr(data, "_MOST_KEPT", data.load(digits).nbytes - 1)
        monkeypatch.setattr(data, "_kept", {})
        assert data.load(digits) is not data.load(digits)
        assert data._kept == {}
