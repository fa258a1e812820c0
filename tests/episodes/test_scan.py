"""SCAN made from its grammar, compared with its counts and, where they are here, with the official files."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from clray.episodes import data, scan
from clray.errors import DataError

COUNTS = {
    "length": (16_990, 3_920),
    "addprim_jump": (14_670, 7_706),
    "addprim_turn_left": (21_890, 1_208),
    "template_around_right": (15_225, 4_476),
    "template_opposite_right": (15_225, 4_476),
    "template_right": (15_225, 4_476),
    "template_jump_around_right": (18_528, 1_173),
    "filler_num0": (15_225, 1_173),
    "filler_num1": (16_290, 1_173),
    "filler_num2": (17_391, 1_173),
    "filler_num3": (18_528, 1_173),
}
FILES = {"length": "length_split", "addprim": "add_prim_split", "template": "template_split"}


def test_the_grammar_makes_every_command_once():
    pairs = scan.all_pairs()
    assert len(pairs) == len({command for command, _ in pairs}) == 20_910
    lengths = [len(actions) for _, actions in pairs]
    assert (min(lengths), max(lengths), max(len(command) for command, _ in pairs)) == (1, 48, 9)
    assert 23 not in lengths


@pytest.mark.parametrize(
    ("command", "actions"),
    [
        ("jump", "I_JUMP"),
        ("turn left", "I_TURN_LEFT"),
        ("walk right", "I_TURN_RIGHT I_WALK"),
        ("turn opposite left", "I_TURN_LEFT I_TURN_LEFT"),
        ("run opposite right", "I_TURN_RIGHT I_TURN_RIGHT I_RUN"),
        ("look around left", "I_TURN_LEFT I_LOOK " * 4),
        ("walk and turn left twice", "I_WALK I_TURN_LEFT I_TURN_LEFT"),
        ("walk thrice after jump left", "I_TURN_LEFT I_JUMP I_WALK I_WALK I_WALK"),
    ],
)
def test_what_commands_mean(command, actions):
    assert scan.interpret(command) == tuple(actions.split())


@pytest.mark.parametrize("command", ["", "turn", "jump jump", "walk around", "walk and", "left", "walk twice twice"])
def test_what_the_grammar_does_not_make_means_nothing(command):
    with pytest.raises(ValueError, match="no such phrase"):
        scan.interpret(command)


@pytest.mark.parametrize("name", scan.SPLITS)
def test_a_split_has_as_many_lines_as_its_files(name):
    train, test = scan.split(name)
    assert (len(train), len(test)) == COUNTS[name]
    assert not {command for command, _ in train} & {command for command, _ in test}
    assert all(scan.interpret(command) == actions for command, actions in train[::97] + test[::97])


def official(path: str) -> list[scan.Pair]:
    given = os.environ.get("CLRAY_DATA")
    file = Path(given or "nowhere") / "scan" / path
    for found in (file, file.with_name(file.name + ".gz")):
        if found.is_file():
            content = found.read_bytes()
            return data.read_pairs((gzip.decompress(content) if found.suffix == ".gz" else content).decode())
    pytest.skip(f"needs SCAN's official files: set CLRAY_DATA to a folder that holds scan/{path}")


@pytest.mark.parametrize("name", [name for name in scan.SPLITS if not name.startswith("filler")])
def test_splits_are_those_of_the_official_files(name):
    folder = next(folder for begin, folder in FILES.items() if name.startswith(begin))
    for part, pairs in zip(("train", "test"), scan.split(name), strict=True):
        assert Counter(official(f"{folder}/tasks_{part}_{name}.txt")) == Counter(pairs)


def test_all_commands_are_those_of_the_official_file():
    pairs = official("tasks.txt")
    assert Counter(pairs) == Counter(scan.all_pairs())
    assert tuple(dict.fromkeys(word for command, _ in pairs for word in command)) == scan.COMMAND_WORDS
    assert tuple(dict.fromkeys(action for _, actions in pairs for action in actions)) == scan.ACTIONS


def test_the_simple_split_is_read_from_its_official_files():
    official("simple_split/tasks_test_simple.txt")
    train, test = data.read_simple()
    assert (len(train), len(test)) == (16_728, 4_182)
    assert {*train, *test} == set(scan.all_pairs())


class TestWithoutTheSimpleSplit:
    def test_it_says_what_is_needed(self, monkeypatch):
        monkeypatch.delenv("CLRAY_DATA", raising=False)
        with pytest.raises(
            DataError, match=r"set CLRAY_DATA to a folder that holds scan/simple_split/tasks_train_simp"
        ):
            data.locate("scan_split", "simple")

    def test_a_missing_file_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        with pytest.raises(DataError, match=r"scan/simple_split/tasks_train_simple.txt: no such file"):
            data.locate("scan_split", "simple")

    @pytest.mark.parametrize("ending", ["", ".gz"])
    def test_another_file_of_that_name_is_not_taken(self, monkeypatch, tmp_path, ending):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        content = b"IN: jump OUT: I_JUMP\n"
        for name in data.SIMPLE:
            file = tmp_path / "scan" / (name + ending)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(content) if ending else content)
        with pytest.raises(DataError, match="not the published file: its SHA-256 is"):
            data.locate("scan_split", "simple")

    def test_a_torn_file_is_an_error(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        file = tmp_path / "scan" / "simple_split" / "tasks_train_simple.txt.gz"
        file.parent.mkdir(parents=True)
        file.write_bytes(gzip.compress(b"IN: jump OUT: I_JUMP\n")[:-6])
        with pytest.raises(DataError, match="torn or foreign: "):
            data.locate("scan_split", "simple")

    @pytest.mark.parametrize("ending", ["", ".gz"])
    def test_crlf_line_ends_are_named(self, monkeypatch, tmp_path, ending):
        content = b"IN: jump OUT: I_JUMP\n"
        monkeypatch.setattr(data, "SIMPLE", dict.fromkeys(data.SIMPLE, hashlib.sha256(content).hexdigest()))
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        for name in data.SIMPLE:
            file = tmp_path / "scan" / (name + ending)
            file.parent.mkdir(parents=True, exist_ok=True)
            held = content.replace(b"\n", b"\r\n")
            file.write_bytes(gzip.compress(held) if ending else held)
        with pytest.raises(DataError, match=r"not the published file: the file has CRLF line ends"):
            data.locate("scan_split", "simple")

    def test_nothing_else_needs_a_file(self, monkeypatch):
        monkeypatch.delenv("CLRAY_DATA", raising=False)
        assert data.locate("scan_length", None)["source"] == "grammar"
        assert data.load(data.locate("mutual_exclusivity", None)) is None


def test_a_foreign_line_is_named():
    with pytest.raises(DataError, match="line 2: 'jump I_JUMP': expected"):
        data.read_pairs("IN: jump OUT: I_JUMP\njump I_JUMP\n")
