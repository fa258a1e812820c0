"""Leaderboards: what stands together, the ranks, and where each number comes from."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from made_records import EMBEDDED, of
from rich.console import Console
from scipy import stats

from clray.analysis import leaderboard
from clray.analysis.comparison import sweep_table
from clray.analysis.gather import Results, filled_up, read, results_of
from clray.analysis.labels import labels_of
from clray.analysis.leaderboard import Board, Source, boards, decided_pairs, difference
from clray.analysis.leaderboard_forms import mean_text, rank_text, source_text, to_data, to_terminal
from clray.analysis.verdict import Variance, holm, published, rounding
from clray.errors import DeclarationError
from clray.loading import load_sweep, papers
from clray.reproduction import load_reproduction
from clray.selection import Selection

LOW = [(70.0, 60.0), (70.5, 61.0), (69.5, 59.5), (70.2, 60.4), (69.9, 60.1)]
HIGH = [(70.1, 62.2), (70.3, 63.5), (69.6, 61.4), (70.0, 62.7), (70.1, 62.0)]
NEAR = [(70.2, 60.3), (70.1, 60.8), (69.9, 59.9), (70.2, 60.2), (69.9, 60.6)]


@pytest.fixture
def rotations_source(store):
    """The sweep of MER's rotations without its paper, from the store or other results."""

    def made(sweep=None, results: Results | None = None, metric="RA") -> Source:
        sweep = sweep or load_sweep("mer/rotations")
        return Source(sweep.name, sweep, sweep_table(sweep, results or read(store), None, [metric]))

    return made


@pytest.fixture
def mer(store):
    """MER's reproduction: its variants, and the published numbers."""

    def made(selection: Selection = Selection(), results: Results | None = None) -> Source:
        found = load_reproduction("mer_rotations")
        sweeps = found.sweeps(selection)
        sweep = sweeps["mer/rotations"]
        labels = labels_of(sweeps, found)["mer/rotations"]
        table = sweep_table(sweep, results or read(store), labels, ["RA"])
        return Source(found.name, sweep, table, found, papers()[found.paper])

    return made


def lines(board: Board) -> list[tuple[str, str, str]]:
    return [(rank_text(r), r.entry.label, source_text(r.entry)) for r in board.ranked]


def printed(found, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(to_terminal(found, "RA"))
    return out.getvalue()


class TestRanks:
    def test_undecided_entries_share_ranks(self, rotations, fill, rotations_source):
        for variant, pairs in (("online", LOW), ("er-5120", HIGH), ("ewc", NEAR)):
            fill(rotations, variant, pairs)
        (board,) = boards([rotations_source()], "RA")
        assert lines(board) == [("1", "er-5120", "own runs"), ("2–3", "ewc", "own runs"), ("2–3", "online", "own runs")]
        assert board.tests == 3

    def test_the_tests_are_scipys_corrected_by_holm(self, rotations, fill, rotations_source):
        for variant, pairs in (("online", LOW), ("er-5120", HIGH), ("ewc", NEAR)):
            fill(rotations, variant, pairs)
        (board,) = boards([rotations_source()], "RA")
        entries = [ranked.entry for ranked in board.ranked]
        found = [difference(entries[i], entries[j])[1] for i, j in ((0, 1), (0, 2), (1, 2))]
        ras = [[ra for _, ra in pairs] for pairs in (HIGH, NEAR, LOW)]
        expected = [stats.ttest_rel(ras[i], ras[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
        assert found == pytest.approx(expected, rel=1e-3)
        decided, _ = decided_pairs(entries)
        assert len(decided) == sum(p < 0.05 for p in holm(expected)) == 2

    def test_lower_is_better_for_forgetting(self, rotations, fill, rotations_source):
        fill(rotations, "online", LOW)
        fill(rotations, "er-5120", HIGH)
        (board,) = boards([rotations_source(metric="forgetting")], "forgetting")
        assert [(rank_text(r), r.entry.label) for r in board.ranked] == [("1", "er-5120"), ("2", "online")]

    def test_one_run_is_ranked_by_its_mean_and_tied_with_all(self, rotations, fill, rotations_source):
        fill(rotations, "online", LOW)
        fill(rotations, "er-5120", HIGH[:1])
        (board,) = boards([rotations_source()], "RA")
        assert [rank_text(r) for r in board.ranked] == ["1–2", "1–2"]
        assert board.tests == 0
        assert "no spread, so no test: er-5120" in " ".join(printed([board]).split())

    def test_there_is_a_limit(self, rotations, fill, rotations_source, monkeypatch):
        monkeypatch.setattr(leaderboard, "MOST_ENTRIES", 1)
        fill(rotations, "online", LOW)
        fill(rotations, "er-5120", HIGH)
        with pytest.raises(DeclarationError, match="mer/rotations: 2 entries on one benchmark; allowed: at most 1"):
            boards([rotations_source()], "RA")


class TestBenchmarks:
    def test_another_benchmark_is_another_board_and_the_difference_is_named(self, rotations, fill, rotations_source):
        other = load_sweep("mer/rotations", Selection(set=("benchmark.seed=7",)))
        fill(rotations, "online", LOW)
        fill(other, "online", HIGH)
        first, second = boards([rotations_source(), rotations_source(other)], "RA")
        assert second.differs_from(first) == ["benchmark.seed 7 (the first: 0)"]
        assert first.differs_from(first) == []
        assert "not comparable with it: benchmark.seed 7 (the first: 0)" in " ".join(printed([first, second]).split())

    def test_other_data_are_another_board(self, rotations, fill, rotations_source, store, make):
        fill(rotations, "online", LOW)
        embedded = results_of([make(of(rotations, "er-5120")[0], *HIGH[0], data=EMBEDDED)])
        first, second = boards([rotations_source(), rotations_source(results=embedded)], "RA")
        (what,) = second.differs_from(first)
        assert what == "data mnist embedded-fedcba98 (the first: mnist 0123456789abcdef)"

    def test_other_task_orders_are_another_board(self, rotations_source):
        other = load_sweep("mer/rotations", Selection(set=("task_orders={random: 2}",)))
        first, second = boards([rotations_source(), rotations_source(other)], "RA")
        assert [text.split(" (")[0][:21] for text in second.differs_from(first)] == ["task orders 2 orders:"]

    def test_a_trial_of_two_sweeps_has_one_line(self, rotations, fill, rotations_source):
        fill(rotations, "online", LOW)
        (board,) = boards([rotations_source(), rotations_source(load_sweep("mer/rotations"))], "RA")
        assert [ranked.entry.label for ranked in board.ranked] == ["online"]
        assert len(board.tables) == 1

    def test_a_published_number_of_two_tables_has_one_line(self, mer):
        (board,) = boards([mer(), mer()], "RA")
        assert len([r for r in board.ranked if r.entry.label == "Online"]) == 1

    def test_a_sweep_without_runs_stands_with_those_that_have_some(self, rotations, fill, rotations_source):
        fill(rotations, "online", LOW)
        (board,) = boards([rotations_source(results=results_of([])), rotations_source()], "RA")
        assert board.setting["data"] == "mnist 0123456789abcdef"

    def test_equal_labels_of_two_sweeps_are_told_apart(self, rotations, fill, rotations_source):
        other = load_sweep("mer/rotations", Selection(set=("variants.online.lr=0.5",)))
        other._name = "mine"
        fill(rotations, "online", LOW)
        fill(other, "online", HIGH)
        (board,) = boards([rotations_source(), rotations_source(other)], "RA")
        assert [ranked.entry.label for ranked in board.ranked] == ["online (mine)", "online (mer/rotations)"]


class TestPublished:
    def test_published_numbers_stand_with_their_paper_and_table(self, rotations, fill, mer):
        fill(rotations, "online", LOW)
        (board,) = boards([mer()], "RA")
        entry = next(r.entry for r in board.ranked if r.entry.published and r.entry.label == "Online")
        assert mean_text(entry) == "53.38 ± 1.53 (5)"
        assert source_text(entry) == "published: Riemer et al., ICLR 2019, Table 1, rotations columns"
        assert sum(r.entry.published is not None for r in board.ranked) == 14

    def test_the_test_against_a_published_number_is_welchs(self, rotations, fill, mer):
        fill(rotations, "online", LOW)
        (board,) = boards([mer()], "RA")
        ours = next(r.entry for r in board.ranked if r.entry.row)
        theirs = next(r.entry for r in board.ranked if r.entry.published and r.entry.label == "Online")
        sample = published(theirs.published.claim)
        ras = [ra for _, ra in LOW]
        expected = stats.ttest_ind_from_stats(
            sum(ras) / 5, stats.tstd(ras), 5, sample.mean, sample.sd, sample.n, equal_var=False
        )
        value, p = difference(ours, theirs)
        assert value == pytest.approx(sum(ras) / 5 - 53.38)
        assert p == pytest.approx(expected.pvalue, rel=0.01)
        assert rounding(theirs.published.claim).value < 1e-4

    def test_the_draw_of_the_stream_counts_between_ours_and_theirs_alone(self, rotations, fill, mer):
        """EWC's stream has a standard deviation of 0.55 between draws."""
        fill(rotations, "ewc", [(80.0, 58.9), (80.0, 59.1), (80.0, 58.95), (80.0, 59.05), (80.0, 59.0)])
        (board,) = boards([mer()], "RA")
        ours = next(r.entry for r in board.ranked if r.entry.row)
        theirs = next(r.entry for r in board.ranked if r.entry.published and r.entry.label == "EWC")
        online = next(r.entry for r in board.ranked if r.entry.published and r.entry.label == "Online")
        assert ours.draw.value == theirs.published.draw.value == pytest.approx(0.55**2)
        sample = published(theirs.published.claim)
        error = (sample.variance_of_mean + 0.079**2 / 5 + 2 * 0.55**2) ** 0.5
        alone = stats.norm.sf(abs(59.0 - sample.mean) / error) * 2
        assert difference(ours, theirs)[1] >= alone
        samples = [published(e.published.claim) for e in (theirs, online)]
        welch = stats.ttest_ind_from_stats(*(x for s in samples for x in (s.mean, s.sd, s.n)), equal_var=False)
        assert difference(theirs, online)[1] == pytest.approx(welch.pvalue, rel=0.01)

    def test_one_estimate_of_the_draws_is_known_no_better_for_being_used_twice(self, rotations, fill, mer):
        fill(rotations, "ewc", [(80.0, 58.9), (80.0, 59.1)])
        (board,) = boards([mer()], "RA")
        ours, theirs = (e for e in (r.entry for r in board.ranked) if e.label == "EWC" or e.row)
        spread = load_reproduction("mer_rotations").tables[0].benchmark_sd
        assert leaderboard._draws(ours, theirs) == [Variance(2 * 0.55**2, spread.draws - 1)]

    def test_two_papers_are_on_two_draws(self, mer):
        (board,) = boards([mer()], "RA")
        ewc = next(r.entry for r in board.ranked if r.entry.published and r.entry.label == "EWC")
        draw = Variance(4.0, 4)
        one = replace(ewc, published=replace(ewc.published, draw=draw))
        another = replace(one, published=replace(one.published, paper=papers()["tag"]))
        assert leaderboard._draws(one, one) == []
        assert leaderboard._draws(one, another) == [Variance(8.0, 4)]

    @pytest.mark.parametrize(
        ("selection", "data", "why"),
        [(Selection(quick=True), None, "--quick"), (Selection(), EMBEDDED, "embedded data")],
    )
    def test_they_are_left_out_of_another_experiment(self, mer, rotations, fill, selection, data, why):
        if data:
            fill(rotations, "online", LOW, data=data)
        (board,) = boards([mer(selection)], "RA")
        assert not any(r.entry.published for r in board.ranked)
        assert ("published", f"the published numbers of mer_rotations are left out: {why}") in list(board.notes)

    def test_numbers_that_were_not_read_in_the_paper_have_a_dagger(self, store):
        tag = load_reproduction("tag_cifar100")
        (sweep,) = tag.sweeps(Selection()).values()
        table = sweep_table(sweep, read(store), labels_of({sweep.name: sweep}, tag)[sweep.name], ["ACC"])
        (board,) = boards([Source(tag.name, sweep, table, tag, papers()[tag.paper])], "ACC")
        assert all(mean_text(r.entry).endswith("†") for r in board.ranked)
        assert mean_text(board.ranked[0].entry) == "67.75 ± 0.58 population sd (5)†"
        assert len(board.waiting) == len(table.rows)


class TestForms:
    @pytest.fixture
    def board(self, store, rotations, fill, make, mer) -> Board:
        fill(rotations, "online", LOW[:3])
        reference = [make(cell, *pair) for cell, pair in zip(of(rotations, "online"), LOW, strict=True)]
        reference += [make(cell, *pair) for cell, pair in zip(of(rotations, "ewc"), NEAR, strict=True)]
        (board,) = boards([mer(results=filled_up(read(store), results_of(reference)))], "RA")
        return board

    def test_each_line_is_marked_by_its_source(self, board):
        sources = {label: source for _, label, source in lines(board) if not source.startswith("published")}
        assert sources == {"Online": "3 own, 2 reference", "EWC": "reference runs"}

    @pytest.mark.parametrize("width", [80, 140])
    def test_the_terminal(self, board, width):
        text = printed([board], width)
        assert max(map(len, text.splitlines())) <= width
        joined = " ".join(text.split())
        assert "mnist-rotations, 20 tasks, mnist 0123456789abcdef" in joined
        assert "60.20 ± 0.55 (5)" in text
        assert "3 own, 2 reference" in text
        assert "7 of 10 runs ship with clray" in joined
        assert "not begun: Independent; Task Input; GEM; MER" in joined

    def test_the_data_are_one_document_with_the_same_content(self, board):
        data = json.loads(json.dumps(to_data([board], "RA"), allow_nan=False))
        (found,) = data["leaderboards"]
        assert found["tests"] == board.tests
        by_label = {(e["label"], e["source"]): e for e in found["entries"]}
        online = by_label["Online", "own and reference"]
        assert (online["own_runs"], online["reference_runs"], online["runs"]) == (3, 2, 5)
        assert online["mean"] == pytest.approx(60.2)
        claim = by_label["Online", "published"]
        assert (claim["mean"], claim["spread"], claim["place"]) == (53.38, 1.53, "Table 1, rotations columns")
        ranks = [(e["rank"], e["worst_rank"]) for e in found["entries"] if e["rank"] is not None]
        assert ranks == [(r.best, r.worst) for r in board.ranked]
        assert {e["label"] for e in found["entries"] if e["rank"] is None} == {e.label for e in board.waiting}
