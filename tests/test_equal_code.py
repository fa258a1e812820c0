"""Pairs of digests of code that gives the same numbers."""

from __future__ import annotations

import json

import pytest

from clray import equal_code
from clray.equal_code import EqualPair, add_pair, is_equal, read_pairs, representative
from clray.errors import DeclarationError

A, B, C, D = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "equal_code.json"
    monkeypatch.setattr(equal_code, "FILE", path)
    equal_code._shipped.cache_clear()
    yield path
    equal_code._shipped.cache_clear()


def test_the_shipped_file_can_be_read():
    assert isinstance(read_pairs(), list)


def test_without_a_file_a_digest_is_equal_to_itself_alone(file):
    assert read_pairs(file) == []
    assert is_equal(A, A)
    assert not is_equal(A, B)
    assert not is_equal(None, A)


def test_equality_goes_both_ways_and_along_chains(file):
    assert add_pair(A, B, "er, 12ab34 and 56cd78", file)
    assert add_pair(B, C, "er, 56cd78 and 9aef01", file)
    assert read_pairs(file) == [EqualPair(A, B, "er, 12ab34 and 56cd78"), EqualPair(B, C, "er, 56cd78 and 9aef01")]
    assert is_equal(A, B)
    assert is_equal(B, A)
    assert is_equal(A, C)
    assert is_equal(C, A)
    assert not is_equal(A, D)
    assert not is_equal(D, D[:-1])
    assert {representative(digest) for digest in (A, B, C)} == {A}
    assert representative(D) == D


def test_what_is_known_is_not_added_again(file):
    add_pair(A, B, "x", file)
    add_pair(B, C, "x", file)
    before = file.read_text()
    assert not add_pair(C, A, "x", file)
    assert file.read_text() == before


def test_a_pair_stands_on_a_line_of_its_own(file):
    add_pair(A, B, "x", file)
    add_pair(C, D, "y", file)
    assert len(file.read_text().splitlines()) == 4
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("one", "other", "reason", "said"),
    [
        (A, A, "x", "both sides"),
        ("A" * 16, B, "x", "not a digest"),
        (A, "b" * 15, "x", "not a digest"),
        (A, B, " ", "reason is empty"),
    ],
)
def test_what_is_no_pair_is_not_added(file, one, other, reason, said):
    with pytest.raises(DeclarationError, match=said):
        add_pair(one, other, reason, file)
    assert not file.exists()


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        {"one": A},
        [[A, B]],
        [{"one": A, "other": B}],
        [{"one": A, "other": B, "reason": 1}],
        [{"one": A, "other": A, "reason": "x"}],
        [{"one": A, "other": "bb", "reason": "x"}],
    ],
)
def test_a_foreign_file_is_one_error(file, content):
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DeclarationError, match=r"equal_code\.json"):
        read_pairs(file)
