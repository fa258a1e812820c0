"""Data files that cannot be read, and data files under another name: one line names each."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.data_files import given_folder, is_file, is_folder, others, reading
from clray.errors import DataError, DeclarationError
from clray.vision import data
from clray.vision.datasets.idx import KINDS, MNIST
from clray.vision.datasets.published import Form, ImageSet, Published

ROOT = Path(__file__).resolve().parents[2]


def not_as_root(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, as another user where this one is root, who may enter every folder.

    What the code calls before ``become_another()`` still runs as this user: modules that another user may not read are
    loaded by then.
    """
    head = """
        import contextlib, io, os
        def become_another():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
        def command(*arguments):
            from clray.cli import main
            import sys
            sys.argv = ["clray", *arguments]
            try:
                main()
            except SystemExit as ended:
                return ended.code
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class TestFoldersThatMayNotBeEntered:
    @pytest.fixture
    def given(self, tmp_path: Path) -> Path:
        """A folder as CLRAY_DATA names it, with three closed ones inside."""
        for name in ("mnist", "lamol/sst", "scan/simple_split"):
            (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"")
        for folder in (tmp_path, tmp_path / "d", *tmp_path.parents):
            if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o077 == 0:
                folder.chmod(folder.stat().st_mode | 0o055)
        closed = [tmp_path / "d" / name for name in ("mnist", "lamol/sst", "scan/simple_split")]
        for folder in closed:
            folder.chmod(0o000)
        yield tmp_path / "d"
        for folder in closed:
            folder.chmod(0o755)

    def test_the_list_names_them_and_goes_on(self, given):
        done = not_as_root(
            """
            with contextlib.redirect_stdout(io.StringIO()):
                command("data", "list")
            become_another()
            print("code", command("data", "list"))
            """,
            CLRAY_DATA=str(given),
            CLRAY_CACHE=str(given.parent / "cache"),
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert f"mnist: {given}/mnist: cannot be read: Permission denied" in lines
        assert f"sst: {given}/lamol/sst: cannot be read: Permission denied" in lines
        assert f"scan-simple: {given}/scan/simple_split: cannot be read: Permission denied" in lines
        assert any(line.startswith("cub: not here") for line in lines)
        assert any(line.startswith("zre: not here") for line in lines)
        assert "Traceback" not in done.stdout + done.stderr

    @pytest.mark.parametrize("command", ["plan", "run"])
    def test_a_sweep_that_needs_one_ends_with_one_line(self, given, command, tmp_path):
        typed = ["plan", "mer/rotations"]
        if command == "run":
            typed = ["run", "mer/rotations", "--variant", "online", "--quick"]
        done = not_as_root(
            f"""
            import clray.cli, clray.commands.plan, clray.commands.run, clray.vision.training, clray.planning
            import clray.vision.methods.online, clray.store, pyarrow.dataset, pyarrow.fs
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                command("plan", "mer/rotations", "--quick", "--results", {str(tmp_path / "r")!r})
            become_another()
            print("code", command(*{typed!r}, "--results", {str(tmp_path / "r")!r}))
            """,
            CLRAY_DATA=str(given),
            CLRAY_CACHE=str(tmp_path / "cache"),
        )
        assert f"{given}/mnist: cannot be read: Permission denied" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr

    def test_a_closed_cache_holds_nothing(self, tmp_path):
        (tmp_path / "cache" / "mnist").mkdir(parents=True)
        (tmp_path / "cache").chmod(0o000)
        try:
            done = not_as_root(
                """
                from clray.vision import data
                from clray.language import data as texts
                data.locate("mnist"), texts.find("sst")
                become_another()
                print(data.locate("mnist")["source"], texts.find("sst"))
                """,
                CLRAY_CACHE=str(tmp_path / "cache"),
                CLRAY_DATA="",
            )
        finally:
            (tmp_path / "cache").chmod(0o755)
        assert done.stdout == "embedded None\n", done.stderr

    def test_a_name_that_no_file_can_have_is_no_file(self, tmp_path):
        assert not is_file(tmp_path / ("x" * 5_000))
        assert not is_folder(tmp_path / ("x" * 5_000))
        assert not is_file(tmp_path / "a\0b")

    def test_a_given_folder_that_is_none(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / ("x" * 5_000)))
        with pytest.raises(DataError, match="no such folder"):
            given_folder()


class TestWhateverAReaderRaises:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (KeyError("label"), "f: torn or foreign: KeyError: 'label'; remove"),
            (ValueError("bad\nand more"), "f: torn or foreign: bad; remove"),
            (zlib.error("invalid"), "f: torn or foreign: invalid; remove"),
            (RecursionError(), "f: torn or foreign: RecursionError; remove"),
            (MemoryError(), "larger than this machine's memory"),
            (OSError("not a gzipped file"), "f: torn or foreign: not a gzipped file; remove"),
            (PermissionError(13, "Permission denied", "f"), "f: cannot be read: Permission denied"),
        ],
    )
    def test_becomes_one_error_that_names_the_file(self, error, said):
        with pytest.raises(DataError) as caught, reading("f"):
            raise error
        assert said in str(caught.value)

    def test_but_for_what_is_an_error_of_its_own(self):
        with pytest.raises(DeclarationError, match=r"^mine$"), reading("f"):
            raise DeclarationError("mine")


class TestImages:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        (tmp_path / "data" / "cifar10").mkdir(parents=True)
        return tmp_path / "data" / "cifar10"

    @staticmethod
    def png(width: int, height: int) -> bytes:
        """The beginning of a PNG file that claims to be so large."""
        head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
        chunks = b""
        for name, content in ((b"IHDR", head), (b"IDAT", b"x" * 20)):
            chunks += len(content).to_bytes(4, "big") + name + content
            chunks += zlib.crc32(name + content).to_bytes(4, "big")
        return b"\x89PNG\r\n\x1a\n" + chunks

    @pytest.mark.parametrize(
        ("column", "said"),
        [
            ("bomb", "decompression bomb"),
            ("large", "image 0 has 9000 x 9000 pixels, expected 32 x 32"),
            ("null", "torn or foreign"),
            ("text", "torn or foreign"),
            ("numbers", "torn or foreign"),
        ],
    )
    def test_one_that_is_none_names_its_file(self, home, column, said):
        values = {
            "bomb": pa.array([self.png(60_000, 60_000)]),
            "large": pa.array([self.png(9_000, 9_000)]),
            "null": pa.array([None], pa.binary()),
            "text": pa.array(["x"]),
            "numbers": pa.array([1.5]),
        }[column]
        for name in ("train", "test"):
            pq.write_table(pa.table({"image": values, "label": [1]}), home / f"{name}.parquet")
        with pytest.raises(DataError) as caught:
            data.locate("cifar10")
        assert said in str(caught.value)
        assert str(caught.value).startswith(str(home / "train.parquet"))

    @pytest.mark.parametrize("labels", [[1.0], [float("nan")], ["one"], [None], [True], [-1], [2**40]])
    def test_labels_that_are_none(self, home, labels, monkeypatch):
        monkeypatch.setattr("clray.vision.datasets.cifar.COUNTS", (1, 1))
        picture = Path(home / "p.png")
        from PIL import Image

        Image.new("RGB", (32, 32)).save(picture)
        for name in ("train", "test"):
            table = pa.table({"image": [picture.read_bytes()], "label": labels})
            pq.write_table(table, home / f"{name}.parquet")
        with pytest.raises(DataError, match=r"torn or foreign|not CIFAR-10"):
            data.locate("cifar10")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"train_images": np.zeros((2, 784))}, "train: float64 images"),
            ({"test_labels": np.zeros(1, np.int32)}, "int32 labels"),
            ({"test_labels": np.zeros(3, np.int64)}, "test: 1 images with 3 labels"),
            ({"train_labels": np.array([0, -1])}, "train: a label is -1"),
            ({"test_images": np.zeros((0, 784), np.uint8), "test_labels": np.zeros(0, np.int64)}, "test: 0 images"),
        ],
    )
    def test_arrays_that_no_image_set_has(self, tmp_path, monkeypatch, change, said):
        sound = {
            "train_images": np.zeros((2, 784), np.uint8),
            "train_labels": np.zeros(2, np.int64),
            "test_images": np.zeros((1, 784), np.uint8),
            "test_labels": np.zeros(1, np.int64),
        }
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "odd.bin").write_bytes(b"x")
        for values in (sound, {**sound, **change}):
            form = Form({"odd.bin": None}, lambda _, values=values: ImageSet(**values))
            monkeypatch.setitem(data.PUBLISHED, "odd", Published("nowhere", (form,)))
            if values is sound:
                data.locate("odd")
                os.utime(tmp_path / "odd" / "odd.bin", ns=(1, 1))
        with pytest.raises(DataError) as caught:
            data.locate("odd")
        assert said in str(caught.value)
        assert "odd.bin" in str(caught.value)


class TestMnistAsOtherToolsLeaveIt:
    @pytest.fixture
    def published(self, mnist) -> Path:
        return Path(os.environ["CLRAY_DATA"]) / "mnist"

    @pytest.mark.parametrize("where", ["mnist", "mnist/MNIST/raw", "MNIST/raw"])
    @pytest.mark.parametrize("spelt", ["-ubyte.gz", "-ubyte", ".gz", ""])
    def test_the_same_content_is_the_same_data_set(self, published, tmp_path, monkeypatch, where, spelt):
        """Unpacked or not, with a dot or a hyphen, in the folders of torchvision."""
        if where == "mnist/MNIST/raw" and spelt in ("", ".gz"):
            where = "mnist"
        folder = tmp_path / where
        folder.mkdir(parents=True)
        for kind in KINDS:
            name = f"{kind}{spelt}" if spelt.startswith("-") else f"{kind.replace('-idx', '.idx')}-ubyte{spelt}"
            content = (published / f"{kind}-ubyte.gz").read_bytes()
            (folder / name).write_bytes(content if spelt.endswith(".gz") else gzip.decompress(content))
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        found = data.locate("mnist", "files")
        assert found == {"name": "mnist", "source": "CLRAY_DATA", "fingerprint": MNIST.fingerprint}
        assert len(data.load(found).train_images) == 60_000

    def test_an_unpacked_file_of_other_content_is_refused(self, published, tmp_path, monkeypatch):
        (tmp_path / "mnist").mkdir()
        for kind in KINDS:
            (tmp_path / "mnist" / f"{kind}-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\0")
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        with pytest.raises(DataError, match="train-images-idx3-ubyte: not the published file"):
            data.locate("mnist")

    def test_files_of_another_form_are_told(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        for name in ("mnist", "fashion-mnist"):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.npz").write_bytes(b"")
        assert data.locate("mnist")["reason"] == (
            f"its files are not here ({tmp_path}/mnist holds other files: mnist.npz)"
        )
        with pytest.raises(DataError, match=r"fashion-mnist holds other files: fashion-mnist\.npz\): clray data fetch"):
            data.locate("fashion-mnist")
        assert others(tmp_path / "none") == ""

    def test_folders_are_told_as_folders(self, tmp_path):
        for name in ("raw", "2", ".hidden"):
            (tmp_path / name).mkdir()
        assert others(tmp_path) == f"{tmp_path} holds other folders: 2/, raw/"
        for name in ("train.csv", "a.csv"):
            (tmp_path / name).write_bytes(b"")
        assert others(tmp_path) == f"{tmp_path} holds other files and folders: 2/, a.csv, raw/ and 1 more"
        assert others(tmp_path / "raw") == ""

    def test_the_list_tells_them(self, tmp_path, monkeypatch, capsys):
        from clray.commands.data import list_command

        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        for folder in ("mnist", "lamol/sst", "scan/simple_split"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "a.bin").write_bytes(b"")
        list_command()
        out = capsys.readouterr().out
        for folder in ("mnist", "lamol/sst", "scan/simple_split"):
            assert f"  {tmp_path}/{folder} holds other files: a.bin\n" in out
