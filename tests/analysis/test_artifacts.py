"""The files beside the trials' records, as the page shows them: attention over the memory, and pseudo-samples."""

from __future__ import annotations

import json
import re

import pytest
from made_records import of
from pydantic import ValidationError
from test_report import Page

from clray.analysis import attention, pseudo_samples
from clray.analysis.attention import AttentionExample
from clray.analysis.comparison import compare
from clray.analysis.pseudo_samples import PseudoSample, written
from clray.analysis.report import render
from clray.store import Store

# Of a trial on mutual exclusivity: three of its four words are in the memory.
SUPPORT = [["lug", "BLUE"], ["zup", "GREEN"], ["wif", "RED"]]
QUERIES = [
    {
        "command": "dax zup",
        "target": "YELLOW GREEN",
        "written": "YELLOW GREEN",
        "attention": [[0.34, 0.33, 0.33], [0.1, 0.85, 0.05], [0.2, 0.5, 0.3]],
    },
    {
        "command": "wif",
        "target": "RED",
        "written": "BLUE",
        "attention": [[0.0, 0.04, 0.96], [0.6, 0.2, 0.2]],
    },
]
EXAMPLE = {"support": SUPPORT, "queries": QUERIES}
SAMPLES = [
    {"before": "sst", "of": "sst", "ids": [1, 2], "text": "__gen__ fine film __ans__ positive", "question": "fine film",
     "answer": "positive", "dropped": None},
    {"before": "sst", "of": "sst", "ids": [1], "text": "__gen__ <b>no end", "question": None, "answer": None,
     "dropped": "no __ans__"},
    {"before": "srl", "of": "sst", "ids": [1], "text": "dull __ans__ negative", "question": "dull & grey",
     "answer": "negative", "dropped": None},
    {"before": "srl", "of": "srl", "ids": [1], "text": "again", "question": None, "answer": None,
     "dropped": "no __ans__"},
    {"before": "srl", "of": "srl", "ids": [1], "text": "__ans__ __ans__", "question": None, "answer": None,
     "dropped": "more than one __ans__"},
]  # fmt: skip


@pytest.fixture
def finished(store, sweeps, fill):
    """The ids of the finished trials of three variants."""
    sweep = sweeps["mer/rotations"]
    found = {}
    for variant in ("mer-5120", "online", "ewc"):
        fill(sweep, variant, [(87.6, 80.0), (87.8, 81.0)])
        found[variant] = [cell.trial.id("0123456789abcdef") for cell in of(sweep, variant)[:2]]
    return found


@pytest.fixture
def page(finished, store, sweeps, reproduction):
    """``page()`` is the page, from the store as it then is."""
    return lambda at=store: render(compare("mer_rotations", sweeps, at, reproduction))


def words(page: str) -> str:
    return " ".join(" ".join(Page(page).words).split())


def keep(store: Store, id: str, name: str, content) -> None:
    store.write_artifact(id, name, json.dumps(content).encode())


class TestAttention:
    def test_they_are_on_the_page_of_trials_that_have_them(self, page, store, finished):
        assert "Attention over the support set" not in page()
        keep(store, finished["mer-5120"][1], attention.NAME, EXAMPLE)
        keep(
            store,
            finished["online"][0],
            attention.NAME,
            EXAMPLE | {"queries": [{**q, "attention": None} for q in QUERIES]},
        )
        text = page()
        assert words(text).count("Attention over the support set") == 1
        figures = [a["aria-label"] for tag, a in Page(text).tags if tag == "svg" and "attention" in a["aria-label"]]
        # MER's alone: the other has no memory, and the third kept nothing
        assert figures == [attention.alt(AttentionExample(**EXAMPLE), "MER")]
        assert f"seed 1, trial {finished['mer-5120'][1]}" in words(text)
        assert text == page()

    def test_from_a_store_with_a_uri(self, page, store, finished):
        keep(store, finished["mer-5120"][0], attention.NAME, EXAMPLE)
        assert page(Store(f"file://{store.uri}")) == page()

    def test_the_figure_in_words(self):
        said = attention.alt(AttentionExample(**EXAMPLE), "MER")
        assert "dax zup, answered YELLOW GREEN: dax at lug (34%), zup at zup (85%), EOS at zup (50%)" in said
        assert "wif, answered BLUE, which is not RED: wif at wif (96%)" in said

    def test_words_and_meanings_and_shares_are_in_the_figure(self):
        svg = attention.svg(AttentionExample(**EXAMPLE), "MER")
        letters = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        for needed in ("lug → BLUE", "zup → GREEN", "wif → RED", "dax", "EOS", "85", "96", "→ YELLOW GREEN", "not RED"):
            assert needed in letters, needed
        assert letters.count("0") == 1  # the scale's: shares that round to nothing are not written
        assert svg == attention.svg(AttentionExample(**EXAMPLE), "MER")

    def test_words_are_no_formulas(self):
        odd = {"support": [["$x", "y$"]], "queries": [{**QUERIES[1], "command": "$a$", "attention": [[1.0], [1.0]]}]}
        letters = re.findall(r"<text[^>]*>([^<]*)</text>", attention.svg(AttentionExample(**odd), "odd"))
        assert "$x → y$" in letters
        assert "$a$" in letters

    def test_two_or_three_queries_that_fit(self):
        step = {"target": "T", "written": "T"}
        lengths = [9, 9, 2, 1, 1]
        queries = [{**step, "command": " ".join(["a"] * n), "attention": [[1.0]] * (n + 1)} for n in lengths]
        drawn = AttentionExample(support=[("a", "A")], queries=queries).drawn
        assert [len(q.steps) for q in drawn] == [10, 10, 2]
        long = AttentionExample(
            support=[("a", "A")], queries=[{**step, "command": "a " * 40, "attention": [[1.0]] * 41}]
        )
        assert len(long.drawn) == 1

    def test_of_a_large_support_set_what_is_looked_at(self):
        support = [(f"word{i}", f"MEANING{i}") for i in range(50)]
        weights = [[0.001 * (i % 7) for i in range(50)] for _ in range(2)]
        weights[1][49] = 0.9
        weights[0][3] = 0.5
        seen = AttentionExample(
            support=support, queries=[{"command": "w", "target": "", "written": "", "attention": weights}]
        )
        assert len(seen.items) == 20
        assert seen.items == sorted(seen.items)
        assert {3, 49} <= set(seen.items)
        assert "word49 → MEANING49" in attention.svg(seen, "many")

    @pytest.mark.parametrize(
        "content",
        [
            b"{torn",
            pytest.param(b"[]", marks=pytest.mark.slow),
            pytest.param(json.dumps({"support": SUPPORT}).encode(), marks=pytest.mark.slow),
            pytest.param(json.dumps(EXAMPLE | {"support": SUPPORT[:2]}).encode(), marks=pytest.mark.slow),
            json.dumps(EXAMPLE | {"queries": [{**QUERIES[0], "command": "dax"}]}).encode(),
        ],
    )
    def test_what_is_torn_is_a_problem_and_no_failure(self, page, store, finished, content):
        store.write_artifact(finished["mer-5120"][0], attention.NAME, content)
        text = words(page())
        assert "Attention over the support set" not in text
        assert f"{finished['mer-5120'][0]}.looks.json : not readable" in text
        keep(store, finished["mer-5120"][1], attention.NAME, EXAMPLE)
        assert f"seed 1, trial {finished['mer-5120'][1]}" in words(page())

    def test_attention_fits_the_command_and_the_support(self):
        with pytest.raises(ValidationError, match=r"queries.0.attention: expected 2 steps over 3 items"):
            AttentionExample(support=SUPPORT, queries=[{**QUERIES[0], "command": "dax"}])


class TestSamples:
    def test_they_are_on_the_page_of_trials_that_have_them(self, page, store, finished):
        assert "Pseudo-samples" not in page()
        keep(store, finished["mer-5120"][0], pseudo_samples.NAME, SAMPLES)
        keep(store, finished["ewc"][0], pseudo_samples.NAME, [])
        text = words(page())
        assert text.count("Pseudo-samples") == 1
        assert f"MER 2 of 5 kept; seed 0, trial {finished['mer-5120'][0]}" in text
        assert "sst sst fine film positive srl sst dull & grey negative" in text
        assert "no __ans__ 2 __gen__ <b>no end more than one __ans__ 1 __ans__ __ans__" in text
        assert "<b>no end" not in page()

    def test_they_are_counted(self, finished, store, sweeps, reproduction):
        run = compare("mer_rotations", sweeps, store, reproduction).tables[0].rows[-1].runs.runs[0]
        found = written(run, [PseudoSample(**s) for s in SAMPLES])
        assert (found.made, found.kept) == (5, 2)
        assert found.counts == {("sst", "sst"): (2, 1), ("srl", "sst"): (1, 1), ("srl", "srl"): (2, 0)}
        assert found.reasons == [("no __ans__", 2), ("more than one __ans__", 1)]
        assert [s.text for s in found.dropped] == ["__gen__ <b>no end", "__ans__ __ans__"]

    def test_a_handful_is_taken_from_each_task_in_turn(self, finished, store, sweeps, reproduction):
        run = compare("mer_rotations", sweeps, store, reproduction).tables[0].rows[-1].runs.runs[0]
        many = [
            PseudoSample(after="c", of=of, text=f"{of}{i}", question="q" * 900, answer="")
            for of in "ab"
            for i in range(9)
        ]
        shown = written(run, [*many, PseudoSample(after="d", of="c", text="c0")]).shown
        assert [s.text for s in shown] == ["a0", "a1", "a2", "b0", "b1", "c0"]
        assert len(shown[0].question) == 400

    def test_what_is_torn_is_a_problem_and_no_failure(self, page, store, finished):
        keep(store, finished["mer-5120"][0], pseudo_samples.NAME, [{"before": "sst"}])
        text = words(page())
        assert "Pseudo-samples" not in text
        assert "samples.json : not readable: 0.text: Field required" in text
