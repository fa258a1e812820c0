"""Every form of every data set, on small files of the same format: files that are read, and files that are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from clray.errors import DataError
from clray.vision import data
from clray.vision.data import ImageSet
from clray.vision.datasets import cifar, cub, mini_imagenet, notmnist
from clray.vision.datasets.pickles import read_pickle
from clray.vision.datasets.published import ARRAYS
from clray.vision.resize import bilinear

load = inspect.unwrap(data.load)  # the tests of the track read each data set once: here it is read
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty ``CLRAY_DATA``, and an empty cache."""
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def expect(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path, fingerprint: str | None = None) -> None:
    """Have the files in this folder stand for the published ones: their md5 sums, and the content's fingerprint."""
    published = data.PUBLISHED[name]

    def md5(file: str, known: str | None) -> str | None:
        path = folder / file
        return hashlib.md5(path.read_bytes()).hexdigest() if known and path.is_file() else known

    forms = tuple(
        dataclasses.replace(
            form, files={file: md5(file, known) for file, known in form.files.items()}, fingerprint=fingerprint
        )
        for form in published.forms
    )
    monkeypatch.setitem(data.PUBLISHED, name, dataclasses.replace(published, forms=forms))


def assert_equal(one: ImageSet, other: ImageSet) -> None:
    for array in ARRAYS:
        a, b = getattr(one, array), getattr(other, array)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def archive(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


# --------------------------------------------------------------------------------------------------------------
# CIFAR


class Cifar:
    """A CIFAR of two training images and one test image a class, in all its forms."""

    def __init__(self, classes: int) -> None:
        self.classes, self.name = classes, f"cifar{classes}"
        labels = np.repeat(np.arange(classes), 3)
        RNG.shuffle(labels)
        first = np.array([np.flatnonzero(labels == c)[0] for c in range(classes)])
        order = np.concatenate([np.setdiff1d(np.arange(3 * classes), first), first])
        self.labels = labels[order].astype(np.int64)
        self.images = RNG.integers(0, 256, (3 * classes, 3, 32, 32), np.uint8)
        self.counts = (2 * classes, classes)
        train = 2 * classes
        self.whole = ImageSet(self.images[:train], self.labels[:train], self.images[train:], self.labels[train:])

    def batches(self) -> list[slice]:
        """The slices of the batches of the training set (five for CIFAR-10, else one), then that of the test set."""
        train, parts = 2 * self.classes, 5 if self.classes == 10 else 1
        size = train // parts
        return [*(slice(i * size, (i + 1) * size) for i in range(parts)), slice(train, None)]

    def pickles(self, dump: Callable[[Any], bytes] = pickle.dumps) -> dict[str, bytes]:
        names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"] if self.classes == 10 else ["train", "test"]
        label = "labels" if self.classes == 10 else "fine_labels"
        return {
            name: dump({"data": self.images[part].reshape(-1, 3072), label: self.labels[part].tolist()})
            for name, part in zip(names, self.batches(), strict=True)
        }

    def binaries(self) -> dict[str, bytes]:
        names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
        if self.classes == 100:
            names = ["train.bin", "test.bin"]
        return {name: self._records(part) for name, part in zip(names, self.batches(), strict=True)}

    def _records(self, part: slice) -> bytes:
        labels = self.labels[part, None].astype(np.uint8)
        if self.classes == 100:  # the coarse label comes first
            labels = np.concatenate([labels // 5, labels], axis=1)
        return np.concatenate([labels, self.images[part].reshape(-1, 3072)], axis=1).tobytes()

    def parquet(self, path: Path, part: slice, kind: str = "PNG", column: str = "img", **options: Any) -> None:
        images = [encoded(image.transpose(1, 2, 0), kind, **options) for image in self.images[part]]
        values = [{"bytes": image, "path": None} for image in images] if column == "img" else images
        label = "label" if self.classes == 10 else "fine_label"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({column: values, label: self.labels[part]}), path)

    def write(self, form: str, home: Path) -> Path:
        folder, n = home / self.name, self.classes
        python, binary = f"cifar-{n}-{'batches-py' if n == 10 else 'python'}", f"cifar-{n}-batches-bin"
        binary = binary if n == 10 else "cifar-100-binary"
        train, test = slice(0, 2 * n), slice(2 * n, None)
        if form == "python archive":
            archive(
                folder / f"cifar-{n}-python.tar.gz",
                {f"{python}/{k}": v for k, v in {**self.pickles(), "batches.meta": b"not read"}.items()},
            )
        elif form == "binary archive":
            archive(
                folder / f"cifar-{n}-binary.tar.gz",
                {f"{binary}/{k}": v for k, v in reversed(self.binaries().items())},
            )
        elif form in ("python folder", "bare pickles"):
            for name, content in self.pickles().items():
                put(folder / (python if form == "python folder" else "") / name, content)
        elif form in ("binary folder", "bare binaries"):
            for name, content in self.binaries().items():
                put(folder / (binary if form == "binary folder" else "") / name, content)
        elif form == "hub parquet":
            self.parquet(folder / "train-00000-of-00001.parquet", train)
            self.parquet(folder / "test-00000-of-00001.parquet", test)
        else:
            self.parquet(folder / "train.parquet", train, "WEBP", "image", lossless=True)
            self.parquet(folder / "test.parquet", test, "WEBP", "image", lossless=True)
        return folder


@pytest.fixture(params=[10, 100])
def small(request, monkeypatch) -> Cifar:
    made = Cifar(request.param)
    monkeypatch.setattr(cifar, "COUNTS", made.counts)
    return made


CIFAR_FORMS = [
    "python archive", "binary archive", "python folder", "bare pickles", "binary folder", "bare binaries",
    "hub parquet", "parquet",
]  # fmt: skip


class TestCifar:
    @pytest.mark.parametrize("form", CIFAR_FORMS)
    def test_every_form_holds_the_same(self, small, home, monkeypatch, form):
        expect(monkeypatch, small.name, small.write(form, home), small.whole.fingerprint)
        found = data.locate(small.name, "files")
        assert found["fingerprint"] == small.whole.fingerprint
        images = load(found)
        assert_equal(images, small.whole)
        assert images.image_shape == (3, 32, 32)
        assert images.train_images.flags.c_contiguous

    def test_a_content_that_is_not_known_has_its_own_fingerprint(self, small, home, monkeypatch):
        expect(monkeypatch, small.name, small.write("hub parquet", home))
        found = data.locate(small.name)
        assert found["fingerprint"] == small.whole.fingerprint
        assert "no checksum" in found["unverified"]

    def test_another_order_of_the_known_content_is_refused(self, home, monkeypatch):
        small = Cifar(100)
        monkeypatch.setattr(cifar, "COUNTS", small.counts)
        known = small.whole.fingerprint
        swapped = np.r_[1, 0, 2:300]
        small.images, small.labels = small.images[swapped], small.labels[swapped]
        expect(monkeypatch, "cifar100", small.write("parquet", home), known)
        with pytest.raises(DataError) as caught:
            data.locate("cifar100")
        assert str(caught.value).startswith(f"{home / 'cifar100'}: not cifar100 as published: its content is ")
        assert f"expected {known}; remove train.parquet, test.parquet there" in str(caught.value)

    def test_a_foreign_archive_is_never_read(self, small, home):
        folder = small.write("python archive", home)
        with pytest.raises(DataError, match=r"python\.tar\.gz: not the published file: md5 "):
            data.locate(small.name)
        assert (folder / f"cifar-{small.classes}-python.tar.gz").exists()

    @pytest.mark.parametrize("form", ["python folder", "binary folder", "parquet"])
    def test_a_missing_file_is_named(self, small, home, form):
        folder = small.write(form, home)
        gone = max(p for p in folder.rglob("*") if p.is_file())
        gone.unlink()
        with pytest.raises(DataError, match="incomplete: missing ") as caught:
            data.locate(small.name)
        assert str(gone.relative_to(folder)) in str(caught.value)

    @pytest.mark.parametrize("form", CIFAR_FORMS)
    @pytest.mark.parametrize(
        "spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"something else " * 1000]
    )
    def test_a_torn_file_is_one_error_that_names_it(self, small, home, monkeypatch, form, spoil):
        """Even where its checksum was published so."""
        folder = small.write(form, home)
        torn = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        torn.write_bytes(spoil(torn.read_bytes()))
        expect(monkeypatch, small.name, folder)
        with pytest.raises(DataError) as caught:
            data.locate(small.name)
        assert str(torn.parent) in str(caught.value)
        assert "torn or foreign" in str(caught.value) or "not CIFAR-" in str(caught.value)

    def test_an_image_that_is_none(self, small, home, monkeypatch):
        folder = small.write("parquet", home)
        pq.write_table(pa.table({"image": [b"none"], "label": [1], "fine_label": [1]}), folder / "test.parquet")
        expect(monkeypatch, small.name, folder)
        with pytest.raises(DataError, match=r"test\.parquet: torn or foreign"):
            data.locate(small.name)

    def test_missing_examples_are_noticed(self, small, home, monkeypatch):
        folder = small.write("hub parquet", home)
        small.parquet(folder / "test-00000-of-00001.parquet", slice(2 * small.classes, 3 * small.classes - 1))
        expect(monkeypatch, small.name, folder)
        with pytest.raises(DataError, match=f"not CIFAR-{small.classes}: {small.classes - 1} images"):
            data.locate(small.name)


# --------------------------------------------------------------------------------------------------------------
# Pickles


def python2(array: np.ndarray, labels: list[int], label: str) -> bytes:
    """``{'data': array, label: labels}`` as Python 2's cPickle wrote it, with byte strings."""

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    raw = array.tobytes()
    dtype = b"cnumpy\ndtype\n" + short("u1") + b"K\x00K\x01\x87R(K\x03" + short("|") + b"NNN"
    dtype += number(-1) * 2 + b"K\x00tb"
    shape = b"".join(map(number, array.shape)) + b"\x86"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short("b") + b"\x87R"
    made += b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + short("data") + made + short(label) + listed + b"u."


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class TestPickles:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_arrays_and_containers_of_every_protocol(self, protocol):
        given = {
            b"bytes": RNG.integers(0, 256, (3, 4), np.uint8),
            "text": ["a", 1, 2.5, None, (True,)],
            "n": np.int64(3),
        }
        read = read_pickle(io.BytesIO(pickle.dumps(given, protocol=protocol)))
        assert np.array_equal(read[b"bytes"], given[b"bytes"])
        assert (read["text"], read["n"]) == (given["text"], 3)

    def test_python_2(self, home, monkeypatch):
        small = Cifar(100)
        monkeypatch.setattr(cifar, "COUNTS", small.counts)
        for name, part in zip(("train", "test"), small.batches(), strict=True):
            content = python2(small.images[part].reshape(-1, 3072), small.labels[part].tolist(), "fine_labels")
            put(home / "cifar100" / "cifar-100-python" / name, content)
        expect(monkeypatch, "cifar100", home / "cifar100", small.whole.fingerprint)
        assert_equal(load(data.locate("cifar100")), small.whole)

    @pytest.mark.parametrize(
        "evil",
        [
            Evil(eval, "open('ran', 'w')"),
            Evil(open, "ran", "w"),
            Evil(getattr, "text", "upper"),
            Evil(np.load, "file.npy"),
            np.array([Evil(open, "ran", "w")], dtype=object),
            ImageSet,
        ],
        ids=["eval", "open", "getattr", "numpy", "in an array", "a class"],
    )
    def test_nothing_else_is_built_or_run(self, tmp_path, monkeypatch, evil):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(pickle.UnpicklingError, match="which a data file has no need of"):
            read_pickle(io.BytesIO(pickle.dumps({"data": evil})))
        assert not (tmp_path / "ran").exists()

    def test_a_data_set_that_tries_is_one_error_that_names_the_file(self, home, monkeypatch):
        for name in ("train", "test"):
            put(home / "cifar100" / name, pickle.dumps(Evil(eval, "1")))
        expect(monkeypatch, "cifar100", home / "cifar100")
        with pytest.raises(DataError, match=r"cifar100/train: torn or foreign: it asks for builtins\.eval"):
            data.locate("cifar100")


# --------------------------------------------------------------------------------------------------------------
# SVHN


def write_svhn(home: Path, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    images = RNG.integers(0, 256, (32, 32, 3, 12), np.uint8)
    labels = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1], np.uint8)
    folder = home / "svhn"
    folder.mkdir()
    for part, chosen in (("train", slice(0, 8)), ("test", slice(8, 12))):
        content = {"X": images[..., chosen], "y": labels[chosen, None], **changes}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
    return images, labels


class TestSvhn:
    def test_images_and_labels(self, home, monkeypatch):
        images, _ = write_svhn(home)
        expect(monkeypatch, "svhn", home / "svhn", "known")
        found = data.locate("svhn")
        assert found == {"name": "svhn", "source": "CLRAY_DATA", "fingerprint": found["fingerprint"]}
        read = load(found)
        assert read.train_labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # 10 is 0
        assert read.test_labels.tolist() == [8, 9, 0, 1]
        assert read.train_images.shape == (8, 3, 32, 32)
        assert read.train_images.flags.c_contiguous
        assert np.array_equal(read.train_images[5, 2], images[:, :, 2, 5])
        assert np.array_equal(read.test_images[1, 0], images[:, :, 0, 9])

    def test_the_published_sums(self, home):
        write_svhn(home)
        with pytest.raises(DataError, match=r"train_32x32\.mat: not the published file: md5 .*housenumbers"):
            data.locate("svhn")

    @pytest.mark.parametrize(
        "changes",
        [
            {"y": np.zeros((8, 1), np.uint8)},
            {"y": np.ones((3, 1), np.uint8)},
            {"X": np.zeros((32, 32, 3, 8))},
            {"X": np.zeros((8, 3, 32, 32), np.uint8)},
        ],
        ids=["labels", "too few labels", "floats", "another order of axes"],
    )
    def test_foreign_content(self, home, monkeypatch, changes):
        write_svhn(home, **changes)
        expect(monkeypatch, "svhn", home / "svhn")
        with pytest.raises(DataError, match=r"train_32x32\.mat: torn or foreign"):
            load(data.locate("svhn"))

    @pytest.mark.parametrize(
        "spoil", [lambda raw: raw[:200], lambda raw: b"", lambda raw: raw[:-40], lambda raw: b"x" * 999]
    )
    def test_torn_files(self, home, monkeypatch, spoil):
        write_svhn(home)
        path = home / "svhn" / "test_32x32.mat"
        path.write_bytes(spoil(path.read_bytes()))
        expect(monkeypatch, "svhn", home / "svhn")
        with pytest.raises(DataError, match=r"test_32x32\.mat: torn or foreign"):
            load(data.locate("svhn"))


# --------------------------------------------------------------------------------------------------------------
# notMNIST


def glyph(value: int) -> np.ndarray:
    return np.full((28, 28), value, np.uint8)


@pytest.fixture
def glyphs(monkeypatch) -> dict[str, bytes]:
    """30 glyphs, three a letter, in an order that is nobody's, with two broken files and a folder's entry."""
    monkeypatch.setattr(notmnist, "GLYPHS", 30)
    files = {}
    for i in range(3):
        for n, letter in enumerate(reversed(notmnist.LETTERS)):
            files[f"notMNIST_small/{letter}/{(7 * i + n) % 10}{i}.png"] = encoded(glyph(10 * (9 - n) + i), "PNG")
    files["notMNIST_small/A/broken.png"] = b""
    files["notMNIST_small/F/broken.png"] = encoded(glyph(0), "PNG")[:40]
    files["notMNIST_small/F/colour.png"] = encoded(np.zeros((28, 28, 3), np.uint8), "PNG")
    files["notMNIST_small/README"] = b"not a glyph"
    return files


class TestNotMnist:
    @pytest.mark.parametrize(("name", "mode"), [("notMNIST_small.tar.gz", "w:gz"), ("notMNIST_small.tar", "w")])
    def test_letters_in_order_then_shuffled_and_split(self, home, monkeypatch, glyphs, name, mode):
        archive(home / "notmnist" / name, glyphs, mode)
        expect(monkeypatch, "notmnist", home / "notmnist")
        read = load(data.locate("notmnist", "files"))
        values = [10 * letter + i for letter in range(10) for i in range(3)]
        positions = list(range(30))
        np.random.RandomState(0).shuffle(positions)
        assert read.test_images[:, 0].tolist() == [values[p] for p in positions[:3]]
        assert read.train_images[:, 0].tolist() == [values[p] for p in positions[3:]]
        assert read.train_labels.tolist() == [values[p] // 10 for p in positions[3:]]
        assert read.image_shape == (1, 28, 28)
        assert read.train_images.shape == (27, 784)

    def test_a_glyph_too_few(self, home, monkeypatch, glyphs):
        glyphs.pop("notMNIST_small/A/broken.png")
        glyphs.pop(next(iter(glyphs)))
        archive(home / "notmnist" / "notMNIST_small.tar", glyphs, "w")
        with pytest.raises(DataError, match="not notMNIST_small: 29 glyphs can be read, expected 30"):
            data.locate("notmnist")

    def test_a_torn_archive(self, home, monkeypatch, glyphs):
        path = archive(home / "notmnist" / "notMNIST_small.tar.gz", glyphs)
        path.write_bytes(path.read_bytes()[:500])
        expect(monkeypatch, "notmnist", home / "notmnist")
        with pytest.raises(DataError, match=r"notMNIST_small\.tar\.gz: torn or foreign"):
            data.locate("notmnist")

    @pytest.fixture
    def sample(self, home, monkeypatch) -> Path:
        from test_data import idx

        images, labels = notmnist.SAMPLE_FILES
        put(home / "notmnist" / images, idx(RNG.integers(0, 256, (20, 28, 28), np.uint8)))
        put(home / "notmnist" / labels, idx(np.repeat(np.arange(10), 2).astype(np.uint8)))
        expect(monkeypatch, "notmnist", home / "notmnist")
        return home / "notmnist"

    def test_the_sample_is_marked(self, sample):
        found = data.locate("notmnist")
        assert found["partial"] == "10,000 of the 18,724 glyphs of notMNIST_small"
        assert found["fingerprint"].startswith("sample-")
        read = load(found)
        assert (len(read.train_labels), len(read.test_labels)) == (18, 2)
        several = data.locate_all(["notmnist"])
        assert several["partial"] == f"notmnist: {found['partial']}"

    def test_who_insists_does_not_get_the_sample(self, sample):
        with pytest.raises(DataError, match="clray data fetch notmnist"):
            data.locate("notmnist", "files")

    def test_the_whole_goes_before_the_sample(self, sample, tmp_path, glyphs):
        archive(tmp_path / "cache" / "notmnist" / "notMNIST_small.tar", glyphs, "w")
        found = data.locate("notmnist", "files")
        assert found["source"] == "cache"
        assert "partial" not in found
        assert len(load(found).train_labels) == 27


# --------------------------------------------------------------------------------------------------------------
# mini-ImageNet


@pytest.fixture
def mini(home, monkeypatch) -> Path:
    """Two training classes, one test and one validation class of five images; each image tells where it belongs."""
    monkeypatch.setattr(mini_imagenet, "PER_CLASS", 5)
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 2, "test": 1, "val": 1})
    for part, first, classes in (("train", 0, 2), ("test", 2, 1), ("val", 3, 1)):
        write_mini(home, part, first, classes)
    return home / "mini-imagenet"


def write_mini(home: Path, part: str, first: int, classes: int, **changes: Any) -> Path:
    images = np.zeros((5 * classes, 84, 84, 3), np.uint8)
    images[:] = (np.arange(5 * classes) + 5 * first)[:, None, None, None]
    images[:, 1, 2, 0] = 255
    content = {"image_data": images, "class_dict": {f"n{c}": list(range(5 * c, 5 * c + 5)) for c in range(classes)}}
    return put(home / "mini-imagenet" / f"mini-imagenet-cache-{part}.pkl", pickle.dumps(content | changes, protocol=2))


class TestMiniImageNet:
    def test_order_and_split(self, mini):
        found = data.locate("mini-imagenet")
        assert "no checksum of it is published" in found["unverified"]
        read = load(found)
        assert read.image_shape == (3, 84, 84)
        assert read.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
        assert read.test_labels.tolist() == [0, 1, 2, 3]
        assert read.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]
        assert read.test_images[:, 0, 0, 0].tolist() == [4, 9, 14, 19]
        assert (read.train_images[0, :, 1, 2].tolist(), read.train_images[0, :, 2, 1].tolist()) == (
            [255, 0, 0],
            [0] * 3,
        )
        assert read.train_images.flags.c_contiguous

    def test_what_to_do_without_it(self, home):
        for way in (lambda: data.locate("mini-imagenet"), lambda: data.fetch("mini-imagenet")):
            with pytest.raises(DataError) as caught:
                way()
            for word in (
                "kaggle.com/datasets/whitemoon/miniimagenet",
                "mini-imagenet-cache-val.pkl",
                "$CLRAY_DATA/mini-imagenet",
            ):
                assert word in str(caught.value)

    def test_a_missing_part(self, mini):
        (mini / "mini-imagenet-cache-val.pkl").unlink()
        with pytest.raises(DataError, match=r"incomplete: missing mini-imagenet-cache-val\.pkl"):
            data.locate("mini-imagenet")

    @pytest.mark.parametrize(
        "changes",
        [
            {"image_data": np.zeros((4, 84, 84, 3), np.uint8)},
            {"image_data": np.zeros((5, 84, 84, 3))},
            {"image_data": None},
            {"class_dict": {"a": [0, 1, 2, 3, 5]}},
        ],
        ids=["too few", "floats", "none", "mixed classes"],
    )
    def test_foreign_content(self, mini, home, changes):
        path = write_mini(home, "test", 2, 1, **changes)
        with pytest.raises(DataError) as caught:
            data.locate("mini-imagenet")
        assert str(caught.value).startswith(f"{path}: torn or foreign: ")

    @pytest.mark.parametrize("spoil", [lambda raw: raw[:-100], lambda raw: b"", lambda raw: pickle.dumps([1])])
    def test_torn_files(self, mini, spoil):
        path = mini / "mini-imagenet-cache-test.pkl"
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(DataError, match=r"cache-test\.pkl: torn or foreign"):
            data.locate("mini-imagenet")


# --------------------------------------------------------------------------------------------------------------
# CUB, and resizing

BIRDS = {
    "001.Auk/Auk_1.jpg": (0, True), "001.Auk/Auk_2.jpg": (0, False),
    "002.Wren/Wren_9.jpg": (1, True), "002.Wren/Wren_3.jpg": (1, True), "002.Wren/Wren_4.jpg": (1, False),
}  # fmt: skip


@pytest.fixture
def birds(home, monkeypatch) -> dict[str, bytes]:
    """Five photographs and both kinds of lists, by their path in the archive; one photograph is grey."""
    monkeypatch.setattr(cub, "PHOTOGRAPHS", (3, 2))
    monkeypatch.setattr(cub, "CLASSES", 2)
    files = {}
    for i, path in enumerate(BIRDS):
        pixels = np.full((60 + i, 90, 3), (200, 100, 10 * i), np.uint8) if i else glyph(77)
        files[f"CUB_200_2011/images/{path}"] = encoded(pixels, "JPEG", quality=95)
    numbered = list(enumerate(BIRDS.items(), 1))
    files["CUB_200_2011/images.txt"] = "".join(f"{i} {path}\n" for i, (path, _) in numbered).encode()
    files["CUB_200_2011/image_class_labels.txt"] = "".join(f"{i} {c + 1}\n" for i, (_, (c, _)) in numbered).encode()
    files["CUB_200_2011/train_test_split.txt"] = "".join(f"{i} {t:d}\n" for i, (_, (_, t)) in numbered).encode()
    for name, trained in (("CUB_train_list.txt", True), ("CUB_test_list.txt", False)):
        lines = [f"{path} {label}\n" for path, (label, t) in BIRDS.items() if t == trained]
        files[f"CUB_200_2011/{name}"] = "".join(lines).encode()
    return files


def spread(files: dict[str, bytes], home: Path, without: str = "no such file", below: str = "") -> Path:
    for name, content in files.items():
        if without not in name:
            put(home / "cub" / name.removeprefix(below), content)
    return home / "cub"


class TestCub:
    def test_order_labels_and_colours(self, home, birds):
        spread(birds, home)
        read = load(data.locate("cub"))
        assert read.image_shape == (3, 224, 224)
        assert read.train_labels.tolist() == [0, 1, 1]
        assert read.test_labels.tolist() == [0, 1]
        assert np.abs(read.train_images[0].astype(int) - 77).max() <= 1  # the grey one
        colours = [image[:, 100, 100].tolist() for image in (*read.train_images[1:], *read.test_images)]
        wanted = [(200, 100, 20), (200, 100, 30), (200, 100, 10), (200, 100, 40)]
        assert np.abs(np.array(colours) - wanted).max() <= 4

    def test_every_form_holds_the_same(self, home, birds, monkeypatch, tmp_path):
        fingerprints, images = set(), []
        for number, without in enumerate(("CUB_t", "split.txt", "archive")):
            root = tmp_path / str(number)
            if without == "archive":
                archive(root / "cub" / "CUB_200_2011.tgz", dict(reversed(birds.items())))
                expect(monkeypatch, "cub", root / "cub")
            else:
                spread(birds, root, without, "CUB_200_2011/" if number else "")
            monkeypatch.setenv("CLRAY_DATA", str(root))
            monkeypatch.setenv("CLRAY_CACHE", str(root / "cache"))
            found = data.locate("cub")
            assert ("unverified" in found) == (without != "archive")
            fingerprints.add(found["fingerprint"])
            images.append(load(found))
        assert len(fingerprints) == 1
        assert_equal(images[0], images[1])
        assert_equal(images[0], images[2])

    def test_another_split_has_another_fingerprint(self, home, birds):
        folder = spread(birds, home)
        first = data.locate("cub")["fingerprint"]
        put(folder / "CUB_200_2011" / "train_test_split.txt", b"1 0\n2 1\n3 1\n4 1\n5 0\n")
        assert data.locate("cub")["fingerprint"] != first

    def test_a_missing_photograph_is_named(self, home, birds):
        spread(birds, home, "Wren_3")
        with pytest.raises(DataError, match=r"incomplete: missing images/002\.Wren/Wren_3\.jpg, 1 photographs"):
            data.locate("cub")

    def test_a_torn_photograph_is_named(self, home, birds):
        name = "CUB_200_2011/images/002.Wren/Wren_3.jpg"
        spread({**birds, name: birds[name][:150]}, home)
        with pytest.raises(DataError, match=r"Wren_3\.jpg: torn or foreign: "):
            load(data.locate("cub"))

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("train_test_split.txt", b"1 1\n"),
            ("train_test_split.txt", b"1 1\n2 1\n3 1\n4 1\n5 0\n"),
            ("image_class_labels.txt", b"1 1\n2 1\n3 1\n4 1\n5 1\n"),
            ("image_class_labels.txt", b"1 one\n2 1\n3 2\n4 2\n5 2\n"),
            ("images.txt", b"\xff\xfe"),
            ("images.txt", b"1 ../../secret.jpg\n2 b\n3 c\n4 d\n5 e\n"),
        ],
    )
    def test_foreign_lists(self, home, birds, file, content):
        spread({**birds, f"CUB_200_2011/{file}": content}, home)
        with pytest.raises(DataError, match=r"train_test_split\.txt: torn or foreign"):
            data.locate("cub")

    def test_a_torn_archive(self, home, birds, monkeypatch):
        path = archive(home / "cub" / "CUB_200_2011.tgz", birds)
        path.write_bytes(path.read_bytes()[:-700])
        expect(monkeypatch, "cub", home / "cub")
        with pytest.raises(DataError, match=r"CUB_200_2011\.tgz: "):
            data.locate("cub")


class TestBilinear:
    def test_twice_the_size_by_hand(self):
        """New pixel centres lie at ±1/4 of the old ones; beyond the outer centres the edge is repeated."""
        assert bilinear(np.array([[0, 100]], np.uint8), 1, 4).tolist() == [[0, 25, 75, 100]]
        assert bilinear(np.array([[0], [100]], np.uint8), 4, 1).tolist() == [[0], [25], [75], [100]]
        grown = bilinear(np.array([[0, 80], [160, 240]], np.uint8), 4, 4)
        assert grown.tolist() == [[0, 20, 60, 80], [40, 60, 100, 120], [120, 140, 180, 200], [160, 180, 220, 240]]

    def test_half_the_size_by_hand(self):
        assert bilinear(np.array([[0, 10, 40, 90]], np.uint8), 1, 2).tolist() == [[5, 65]]

    def test_it_does_not_smooth_when_it_shrinks_more(self):
        """A third of the size takes every third pixel, whatever lies between."""
        line = np.array([[9, 1, 200, 7, 2, 90]], np.uint8)
        assert bilinear(line, 1, 2).tolist() == [[1, 2]]

    def test_a_fraction_by_hand(self):
        """3 to 2: centres at 0.25 and 1.75."""
        assert bilinear(np.array([[0, 100, 200]], np.uint8), 1, 2).tolist() == [[25, 175]]

    def test_pillow_agrees_where_images_grow(self):
        image = RNG.integers(0, 256, (28, 28), np.uint8)
        theirs = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(np.rint(bilinear(image, 32, 32)).astype(int) - theirs).max() <= 1

    def test_torch_agrees(self):
        import torch

        images = RNG.integers(0, 256, (2, 3, 37, 51), np.uint8)
        theirs = torch.nn.functional.interpolate(torch.from_numpy(images).float(), (23, 64), mode="bilinear").numpy()
        assert np.allclose(bilinear(images, 23, 64), theirs, atol=1e-3)
