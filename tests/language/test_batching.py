"""Minibatches: those of the official code, and those of rows of similar length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lamol_fixtures import lamol_vocabulary, reference

from clray.language.batching import as_coded, bucketed, collate, padded
from clray.language.encoding import encode
from clray.language.examples import Example

OFFICIAL = reference("encoding.json")
LENGTHS = OFFICIAL["dynamic_batch"]["cqa_lens"]


@pytest.mark.parametrize("case", OFFICIAL["dynamic_batch"]["cases"])
def test_batches_are_the_official_ones(case: dict[str, Any]) -> None:
    order = range(len(LENGTHS))
    found = as_coded(LENGTHS, order, case["budget"], case["max_batch_size"], train=case["data_type"] == "train")
    assert found == case["batches"]


def test_after_a_full_batch_the_next_is_counted_one_too_large() -> None:
    budget = 10**1.163 * 5
    assert as_coded([10] * 8, range(8), budget, 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert as_coded([10] * 12, range(12), budget, 5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
    assert as_coded([10] * 12, range(12), budget, 5, train=False) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_an_example_over_the_budget_stands_alone() -> None:
    assert as_coded([9, 90, 9, 90], range(4), 30.0, 4) == [[0], [1], [2], [3]]
    assert as_coded([90], [0], 30.0, 4) == [[0]]
    assert as_coded([], [], 30.0, 4) == []


def test_batches_follow_the_order() -> None:
    assert as_coded([5, 6, 7, 8], [3, 1, 0, 2], 1e9, 3) == [[3, 1, 0], [2]]


def _lengths(count: int) -> list[int]:
    return np.random.default_rng(0).geometric(0.03, count).clip(5, 300).tolist()


def test_bucketed_batches_keep_the_budget_and_hold_every_example_once() -> None:
    lengths = _lengths(4000)
    batches = bucketed(lengths, 1000, np.random.default_rng(1))
    assert sorted(i for batch in batches for i in batch) == list(range(4000))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 1000 for batch in batches)
    assert max(len(batch) for batch in bucketed(lengths, 1000, np.random.default_rng(1), largest=7)) == 7


def test_bucketed_batches_hold_little_padding() -> None:
    lengths, rng = _lengths(4000), np.random.default_rng(1)

    def share_of_padding(batches: list[list[int]]) -> float:
        read = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        return 1 - sum(lengths) / read

    assert share_of_padding(bucketed(lengths, 2000, rng)) < 0.1
    assert share_of_padding(as_coded(lengths, rng.permutation(4000).tolist(), 4000, 16)) > 0.4


def test_bucketed_batches_differ_by_epoch_and_come_in_random_order() -> None:
    lengths = _lengths(4000)
    one, same, other = (bucketed(lengths, 1000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert len({frozenset(batch) for batch in one} & {frozenset(batch) for batch in other}) < len(one) / 20
    longest = [max(lengths[i] for i in batch) for batch in one]
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.3


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    batches = bucketed([3, 500, 3, 600, 3], 100, np.random.default_rng(0))
    assert sorted(sorted(batch) for batch in batches) == [[0, 2, 4], [1], [3]]
    assert bucketed([], 100, np.random.default_rng(0)) == []


def test_sequences_are_filled_up_as_by_the_official_code() -> None:
    vocabulary, expected = lamol_vocabulary(), OFFICIAL["collate_sst3"]
    rows = [
        encode(Example(row["context"], row["question"], tuple(row["answers"]), ""), vocabulary, 50260, 1024)
        for row in OFFICIAL["tasks"]["sst"]["rows"][:3]
    ]
    found = collate(rows, vocabulary.pad)
    names = ["cqs", "len_cqs", "cqas", "len_cqas", "Ys", "gen_Xs", "gen_Ys"]
    assert {name: [field.tolist()] for name, field in zip(names, found, strict=True)} == expected
    assert all(field.dtype == torch.int64 for field in found)


def test_rows_are_filled_up_on_either_side() -> None:
    assert padded([[1], [2, 3], []], 9).tolist() == [[1, 9], [2, 3], [9, 9]]
    assert padded([[1], [2, 3], []], 9, left=True).tolist() == [[9, 1], [2, 3], [9, 9]]
