"""Printed text: control characters have no effect, no key is printed, and no character can end a command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from waiting import GUARD

from clray.console import PlainConsole
from clray.errors import ClrayError
from clray.output import STAND_INS, OutputLost, json_text, redacted, say, shown, visible, write_file

ROOT = str(Path(__file__).resolve().parents[1])


@pytest.mark.parametrize(
    ("text", "spelt_out"),
    [
        ("plain, é, 数, 😀", "plain, é, 数, 😀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00\r", r"\x9b31m\x7f\x00\r"),
        ("right\u202eleft\u2028", r"right\u202eleft\u2028"),
        ("half a letter \udce9", r"half a letter \udce9"),
    ],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, spelt_out: str) -> None:
    assert visible(text) == spelt_out
    assert visible(spelt_out) == spelt_out


@pytest.mark.parametrize(
    ("text", "without_keys"),
    [
        ("s3://AKIA:SECRET@bucket/runs?region=x", "s3://***@bucket/runs?region=x"),
        ("s3://AKIA:SEC/RET@bucket: cannot be opened", "s3://***@bucket: cannot be opened"),
        ("--results 's3://A:B@c/d' --seeds 0", "--results 's3://***@c/d' --seeds 0"),
        ("abfs://container@account/x?client_secret=abc&tenant_id=4", "abfs://container@account/x?client_secret=***&tenant_id=4"),
        ("gs://anonymous@bucket/x", "gs://anonymous@bucket/x"),
        ("http://localhost:8080 and me@home", "http://localhost:8080 and me@home"),
        ('["http://a:1","b@c"]', '["http://a:1","b@c"]'),
    ],
)  # fmt: skip
def test_no_key_of_a_store_is_printed(text: str, without_keys: str) -> None:
    assert redacted(text) == shown(text) == without_keys


def test_json_is_the_same_for_who_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"α\x9b": "😀\x7f\u202e\ud800", "plain": ["é", 1.5]}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    text = json_text(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert text.isprintable()
    assert "é" in text
    text.encode("latin-1")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_letters_that_the_output_lacks_get_a_stand_in(encoding: str) -> None:
    code = "from clray.output import *; accept_every_letter(); import sys\n"
    code += "print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)"
    text = "5 ± 1 → 4 − 2, 数, †"
    done = subprocess.run(
        [sys.executable, "-c", code, text], capture_output=True, cwd=ROOT, timeout=GUARD,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == done.stdout
    for letter in set(text):
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            text = text.replace(letter, STAND_INS.get(letter, ascii(letter)[1:-1]))
    assert done.stdout.decode(encoding) == text + "\n"
    assert all(stand_in.isascii() for stand_in in STAND_INS.values())


def test_a_console_prints_text_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "200")
    console, odd = PlainConsole(), ["a[/b]", "a[b]", ":smile:", "[bold]x", "\x1b[2J", "[link=x]s3://A:B@c"]
    table = Table(title="t[/t]")
    table.add_column("c[/c]")
    for text in odd:
        table.add_row(text)
        table.add_row(Text(text))
        console.print(text, style="red")
        console.print(Text(text))
    console.print(table)
    printed = out.getvalue()
    assert "\x1b" not in printed
    assert "t[/t]" in printed
    assert "c[/c]" in printed
    for text in odd[:5]:
        assert printed.count(visible(text)) == 4, text
    assert printed.count("[link=x]s3://***@c") == 2, "of strings; a Text is what its maker made of it"


def test_output_that_cannot_be_written_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputLost, match="the output cannot be written: No space left on device"):
            say("x" * 100_000)
        with pytest.raises(OutputLost, match="No space left on device"):
            PlainConsole().print("x")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert write_file(file, b"one") == file
    assert write_file(file, b"two").read_bytes() == b"two"
    long = tmp_path / ("x" * 250)
    write_file(long, b"a name that leaves no room for an ending")
    link = tmp_path / "link"
    link.symlink_to(file)
    write_file(link, b"three")
    assert link.is_symlink()
    assert file.read_bytes() == b"three"
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    for path, reason in (
        (tmp_path / "no" / "file", f"there is no folder {tmp_path / 'no'}"),
        (file / "below", f"there is no folder {file}"),
        (tmp_path, "it is a folder: name a file"),
        (full, "No space left on device"),
        (tmp_path / ("x" * 300), "File name too long"),
        ("nul\0", "embedded null byte"),
    ):
        with pytest.raises(ClrayError) as caught:
            write_file(path, b"four")
        assert str(caught.value).endswith(f": cannot be written: {reason}")
    assert full.is_char_device()
    assert sorted(tmp_path.iterdir()) == sorted([file, long, link, full])
