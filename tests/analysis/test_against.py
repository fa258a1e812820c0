"""Variants of a sweep against each other: which runs, which pairs, which verdict, and in which words."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from made_records import EMBEDDED, REAL, of
from rich.console import Console
from scipy import stats

from clray import reference_runs
from clray.analysis import forest
from clray.analysis.against import (
    MOST_OF_ALL_PAIRS,
    Contrast,
    choose,
    compare_all,
    contrasts,
    other_benchmarks,
    variant_of,
)
from clray.analysis.against_forms import all_notes, statistics_notes, to_data, to_terminal
from clray.analysis.comparison import ComparedRow, sweep_table
from clray.analysis.gather import read, results_of
from clray.analysis.labels import first_metric, labels_of
from clray.analysis.own_first import Sources
from clray.analysis.verdict import holm
from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.record import Record
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.sweep import Sweep

LOW = [(70.0, 60.0), (70.5, 61.0), (69.5, 59.5), (70.2, 60.4), (69.9, 60.1)]
HIGH = [(70.1, 62.2), (70.3, 63.5), (69.6, 61.4), (70.0, 62.7), (70.1, 62.0)]
NEAR = [(70.2, 60.3), (70.1, 60.8), (69.9, 59.9), (70.2, 60.2), (69.9, 60.6)]
"""Pairs of LA and RA; forgetting is the larger, the further RA is below LA."""


@pytest.fixture
def table(store, rotations, fill):
    """A table of the online variant and others, from pairs of LA and RA."""

    def made(metrics=("RA",), **variants):
        for variant, pairs in variants.items():
            fill(rotations, variant.replace("_", "-"), pairs)
        labels = {variant.replace("_", "-"): variant.upper() for variant in variants}
        return sweep_table(rotations, read(store), labels, metrics)

    return made


def against_first(table) -> list[Contrast]:
    (found,) = compare_all([(table, table.rows[0].variant, ())])
    return list(found.contrasts)


def printed(found, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(to_terminal(found))
    return out.getvalue()


class TestDecisions:
    def test_better_worse_and_not_decided(self, table):
        found = against_first(table(online=LOW, er_5120=HIGH, ewc=NEAR))
        assert [c.decision for c in found] == ["better", "not decided"]
        assert [c.decision for c in against_first(table(online=HIGH, er_5120=LOW))] == ["worse"]

    def test_p_is_scipys_corrected_by_holm_over_all_metrics(self, table):
        found = against_first(table(("RA", "LA"), online=LOW, er_5120=HIGH, ewc=NEAR))
        ras, las = ([[pair[i] for pair in pairs] for pairs in (LOW, HIGH, NEAR)] for i in (1, 0))
        p_values = [stats.ttest_rel(of[0], other).pvalue for of in (ras, las) for other in of[1:]]
        assert [c.gap.p for c in found] == pytest.approx(p_values, rel=1e-3)
        assert [c.p for c in found] == pytest.approx(holm(p_values), rel=1e-3)

    def test_lower_is_better_for_forgetting(self, table):
        """HIGH has the higher RA and the lower forgetting: better in both."""
        by_metric = {c.metric: c for c in against_first(table(("RA", "forgetting"), online=LOW, er_5120=HIGH))}
        assert by_metric["RA"].gap.difference.value > 0 > by_metric["forgetting"].gap.difference.value
        assert [c.decision for c in by_metric.values()] == ["better", "better"]
        assert by_metric["RA"].probability == by_metric["forgetting"].probability == 1.0

    def test_variants_without_runs_are_part_of_the_family(self, table, rotations, store):
        alone = against_first(table(online=LOW, er_5120=HIGH))
        labels = {name: name for name in ("online", "er-5120", "ewc", "mer-5120")}
        wider = against_first(sweep_table(rotations, read(store), labels, ["RA"]))
        assert wider[0].p == pytest.approx(3 * alone[0].p)
        assert [(c.decision, c.reason) for c in wider[1:]] == [
            ("not decided", "no run of ewc"),
            ("not decided", "no run of mer-5120"),
        ]

    def test_one_run_is_no_test(self, table):
        (found,) = against_first(table(online=LOW, er_5120=HIGH[:1]))
        assert (found.gap, found.p, found.decision) == (None, None, "not decided")
        assert found.reason == "one run of ER_5120 has no spread"
        assert found.probability == 1.0
        assert found.probability_interval is None

    def test_a_metric_that_was_not_measured(self, table):
        (found,) = against_first(table(("A_AUC",), online=LOW, er_5120=HIGH))
        assert found.reason == "A_AUC is not measured in ER_5120"

    def test_advice_is_for_what_is_not_decided(self, table):
        decided, undecided = against_first(table(online=LOW, er_5120=HIGH, ewc=NEAR))
        assert decided.further is None
        assert undecided.further > 10

    def test_the_advice_is_for_the_level_that_holm_leaves(self, table):
        """With more comparisons the same difference needs more seeds."""
        one = table(online=LOW, ewc=NEAR)
        few = contrasts([("RA", one.rows[1], one.rows[0])])[0].further
        many = contrasts([("RA", one.rows[1], one.rows[0])] * 12)[0].further
        assert many > few

    def test_all_pairs(self, table):
        three = table(online=LOW, er_5120=HIGH, ewc=NEAR)
        (found,) = compare_all([(three, None, ())])
        names = [(c.row.variant, c.against.variant) for c in found.contrasts]
        assert names == [("er-5120", "online"), ("ewc", "online"), ("ewc", "er-5120")]
        assert [c.decision for c in found.contrasts] == ["better", "not decided", "worse"]


class TestChoice:
    LABELS = {"mer": {"naive": "Fine-tuning", "er-ace": "ER-ACE", "derpp": "DER++", "derpp-decay": "DER++ decay"}}

    def chosen(self, *names, against=None, all_pairs=False, labels=None):
        return choose("x", labels or self.LABELS, names, against, all_pairs)

    def test_the_first_variant_is_the_baseline(self):
        assert self.chosen()["mer"].baseline == "naive"
        assert list(self.chosen()["mer"].variants) == list(self.LABELS["mer"])

    def test_the_first_name_is_the_baseline(self):
        found = self.chosen("derpp", "er_ace")["mer"]
        assert (list(found.variants), found.baseline) == (["derpp", "er-ace"], "derpp")

    def test_a_named_baseline_need_not_be_among_the_names(self):
        found = self.chosen("derpp", against="Fine-Tuning")["mer"]
        assert (list(found.variants), found.baseline) == (["naive", "derpp"], "naive")
        assert list(self.chosen(against="derpp")["mer"].variants) == ["derpp", "naive", "er-ace", "derpp-decay"]

    @pytest.mark.parametrize("typed", ["er-ace", "er_ace", "ER-ACE", "ErAce", "er ace"])
    def test_names_are_found_as_people_type_them(self, typed):
        assert variant_of(typed, self.LABELS["mer"]) == "er-ace"

    def test_an_exact_name_comes_before_one_that_is_alike(self):
        labels = {"er_ace": "a", "er-ace": "b"}
        assert variant_of("er_ace", labels) == "er_ace"
        with pytest.raises(DeclarationError, match="several variants are called so; allowed: er_ace, er-ace"):
            variant_of("ER ACE", labels)

    @pytest.mark.parametrize(
        ("names", "options", "said"),
        [
            (("derp",), {}, "derp: no variant of x; did you mean 'derpp'?"),
            (("",), {}, "'': no variant of x"),
            (("derpp",), {}, "derpp: nothing to compare: it needs two different variants"),
            (("derpp", "DER++"), {}, "it needs two different variants"),
            (("derpp",), {"against": "other"}, "other: no variant of x"),
            ((), {"against": "derpp", "all_pairs": True}, "--against derpp: with --all-pairs there is no baseline"),
        ],
    )
    def test_wrong_names(self, names, options, said):
        with pytest.raises(DeclarationError) as caught:
            self.chosen(*names, **options)
        assert said in str(caught.value)

    def test_variants_of_different_sweeps_are_not_compared(self):
        labels = {"one": {"a": "A", "b": "B"}, "two": {"c": "C", "a": "A"}}
        assert list(self.chosen("a", "c", labels=labels)) == ["two"]
        with pytest.raises(DeclarationError, match="no sweep of x has two of these variants"):
            self.chosen("b", "c", labels=labels)

    def test_there_is_a_limit_to_all_pairs(self):
        many = {"big": {f"v{i}": f"v{i}" for i in range(MOST_OF_ALL_PAIRS + 1)}}
        with pytest.raises(DeclarationError, match="--all-pairs: 201 variants of x; allowed: at most 200"):
            self.chosen(all_pairs=True, labels=many)
        assert len(self.chosen(labels=many)["big"].variants) == 201


class TestLabels:
    def test_rows_of_a_reproduction_come_first_in_their_order(self):
        mnist = load_reproduction("online_mnist")
        labels = labels_of(mnist.sweeps(Selection()), mnist)["online/mnist"]
        assert list(labels)[:2] == ["naive", "agem"]
        assert labels["derpp"] == "DER++"
        assert first_metric("online/mnist", mnist.sweeps(Selection())["online/mnist"], mnist) == "ACC"

    def test_a_label_of_two_variants_is_replaced_by_their_names(self):
        mnist = load_reproduction("online_mnist")
        (declared,) = mnist.tables
        rows = [row.model_copy(update={"label": "DER" if "der" in row.variant else row.label}) for row in declared.rows]
        mnist = mnist.model_copy(update={"tables": [declared.model_copy(update={"rows": rows})]})
        labels = labels_of(mnist.sweeps(Selection()), mnist)["online/mnist"]
        assert (labels["derpp"], labels["der"], labels["er"]) == ("derpp", "der", "ER")

    def test_a_sweep_has_its_names_and_its_metric(self, rotations):
        labels = labels_of({"mer/rotations": rotations}, None)["mer/rotations"]
        assert labels["er-5120"] == "er-5120"
        assert first_metric("mer/rotations", rotations, None) == "RA"


class TestOwnFirst:
    """The store's run of each trial, and the reference run where the store has none."""

    @pytest.fixture
    def shipped(self, monkeypatch, rotations, make):
        """Reference runs of the online variant."""

        def ship(pairs=HIGH, **changes) -> list[Record]:
            made = [make(c, *pair, **changes) for c, pair in zip(of(rotations, "online"), pairs, strict=False)]
            monkeypatch.setattr(reference_runs, "names", lambda: ["some"])

            def read(name: str, declarations: set[str]) -> list[Record]:
                return [record for record in made if record.trial.declaration in declarations]

            monkeypatch.setattr(reference_runs, "read", read)
            return made

        return ship

    def runs(self, store, sweep: Sweep, shown="both", is_current=None):
        results, notes = Sources([sweep], store, shown, is_current).of(sweep)
        return sweep_table(sweep, results, {"online": "Online", "er-5120": "ER"}, ["RA"]), notes

    def values(self, row: ComparedRow) -> list[tuple[float, bool]]:
        return [(round(run.metrics["RA"], 2), run.shipped) for run in row.runs.runs]

    def test_the_stores_own_come_first(self, store, rotations, fill, shipped):
        shipped()
        fill(rotations, "online", LOW[:2])
        table, notes = self.runs(store, rotations)
        assert self.values(table.rows[0]) == [
            *((ra, False) for _, ra in LOW[:2]),
            *((ra, True) for _, ra in HIGH[2:]),
        ]
        assert notes == []

    @pytest.mark.parametrize(("shown", "count"), [("own", 2), ("reference", 5), ("both", 5)])
    def test_each_kind_alone(self, store, rotations, fill, shipped, shown, count):
        shipped()
        fill(rotations, "online", LOW[:2])
        table, _ = self.runs(store, rotations, shown)
        assert len(table.rows[0].runs.runs) == count
        assert sum(run.shipped for run in table.rows[0].runs.runs) == {"own": 0, "reference": 5, "both": 3}[shown]

    def test_a_begun_run_does_not_hide_the_reference_run(self, store, rotations, make, shipped):
        shipped()
        store.write(make(of(rotations, "online")[0], 50.0, 50.0, status="running"))
        table, _ = self.runs(store, rotations)
        assert len(table.rows[0].runs.runs) == 5

    def test_other_data_than_the_stores_are_not_mixed_in(self, store, rotations, fill, shipped):
        shipped()
        fill(rotations, "er-5120", LOW, data=EMBEDDED)
        table, notes = self.runs(store, rotations)
        assert [len(row.runs.runs) for row in table.rows] == [0, 5]
        assert notes == [
            (
                "reference",
                f"5 runs that ship with clray are not used: they are on other data (mnist (cache, "
                f"{REAL['fingerprint'][:8]})); --records reference shows them",
            )
        ]

    def test_stale_reference_runs_are_counted(self, store, rotations, shipped):
        shipped(code="0ld0000000000000")
        table, _ = self.runs(store, rotations, is_current=lambda record: False)
        assert table.stale == 5

    def test_of_reads_each_record_once(self, rotations, shipped):
        made = shipped()
        declared = {record.trial.declaration for record in made[:3]}
        assert {record.id for record in reference_runs.of(declared)} == {record.id for record in made[:3]}

    def test_baselines_that_ship_stand_beside_a_new_variant(self, store, rotations, make, fill):
        """A user's own sweep with a new variant: its trials of the shipped variants are the shipped ones."""
        mnist = load_sweep("online/mnist")
        mine = mnist.with_variants({"er": dict(mnist.variants["er"]), "mine": {**mnist.variants["er"], "lr": 0.06}})
        results, _ = Sources([mine], store, "both").of(mine)
        table = sweep_table(mine, results)
        assert [len(row.runs.runs) for row in table.rows] == [5, 0]


class TestForms:
    @pytest.fixture
    def found(self, table):
        made = table(("RA", "forgetting"), online=LOW, er_5120=HIGH[:4], ewc=NEAR, gem_5120=[])
        return compare_all([(made, "online", [("about", "a note")])])

    @pytest.mark.parametrize("width", [80, 160])
    def test_each_width_says_the_same_and_fits(self, found, width):
        text = printed(found, width)
        assert max(map(len, text.splitlines())) <= width
        for said in ("RA (retained accuracy), higher is better", "forgetting (average forgetting), lower is better"):
            assert said in text
        joined = " ".join(text.split())
        assert "60.20 ± 0.55 (5)" in text
        for said in (
            "62.45 ± 0.88 (4)",
            "of 4 pairs",
            "better",
            "not decided",
            "more seeds",
            "6 comparisons",
            "a note",
        ):
            assert said in joined
        assert "4 of 5 runs, without seed 4" in joined
        assert "not begun: GEM_5120" in joined

    def test_a_run_without_partner_is_named(self, found):
        assert ("tests", "runs without a partner take no part in the difference: ER_5120 and ONLINE 1") in (
            statistics_notes([c for of in found for c in of.contrasts])
        )

    def test_data_hold_all_of_it(self, found):
        data = to_data("mer/rotations", found)
        assert data["family"] == len(data["comparisons"]) == 6
        assert data["metrics"]["forgetting"]["better"] == "lower"
        first = data["comparisons"][0]
        assert (first["variant"], first["against"], first["pairs"], first["test"]) == ("er-5120", "online", 4, "paired")
        paired = stats.ttest_rel([ra for _, ra in HIGH[:4]], [ra for _, ra in LOW[:4]])
        assert first["p"] == pytest.approx(paired.pvalue, rel=1e-3)
        assert first["interval"] == pytest.approx(list(paired.confidence_interval()), abs=1e-3)
        er = next(v for v in data["variants"] if v["variant"] == "er-5120")
        assert (er["expected_runs"], er["finished_runs"], er["own_runs"], er["reference_runs"]) == (5, 4, 4, 0)
        assert er["missing"] == [{"seed": 4, "task_order": None}]
        assert [round(run["values"]["RA"], 2) for run in er["runs"]] == [ra for _, ra in HIGH[:4]]

    def test_another_benchmark_is_named(self, rotations):
        other = rotations.with_variants(
            {
                "online": dict(rotations.variants["online"]),
                "few": {**rotations.variants["online"], "benchmark": {"tasks": 5}},
            }
        )
        table = sweep_table(other, results_of([]))
        assert other_benchmarks(other, table) == [
            ("benchmark", "few has another one: benchmark.tasks 5 (online: 20)"),
        ]

    def test_seeds_crossed_with_orders_are_told(self, store):
        orders = load_sweep("online/class_orders")
        results, _ = Sources([orders], store, "reference").of(orders)
        table = sweep_table(orders, results, {"er": "ER", "derpp": "DER++"}, ["ACC"])
        (found,) = compare_all([(table, "er", ())])
        (made,) = found.contrasts
        assert made.gap.pairs == 360
        assert made.gap.difference.df < 10, "three seeds decide it, however many orders there are"
        assert any("min F'" in text for _, text in statistics_notes([made]))
        assert ("sources", "360") not in all_notes(found)
        assert "720 of 720 runs ship with clray" in dict(all_notes(found))["sources"]


class TestForest:
    def test_it_has_the_variants_with_two_runs(self, table):
        found = forest.of_table(table(("RA", "LA"), online=LOW, er_5120=HIGH, ewc=NEAR[:1], gem_5120=[]))
        assert [row.variant for row in found.table.rows] == ["online", "er-5120"]
        assert [c.metric for c in found.contrasts] == ["RA"]
        assert forest.of_table(table(online=LOW)) is None

    def test_variants_that_learn_something_else_are_left_out(self, table):
        made = table(online=LOW, er_5120=HIGH, ewc=NEAR)
        few = made.rows[2]
        trial = few.runs.runs[0].trial
        other = trial.model_copy(update={"benchmark": {**trial.benchmark, "tasks": 5}})
        runs = replace(few.runs, runs=[replace(run, trial=other) for run in few.runs.runs])
        mixed = replace(made, rows=[*made.rows[:2], replace(few, runs=runs)])
        assert [row.variant for row in forest.of_table(mixed).table.rows] == ["online", "er-5120"]
        assert forest.of_table(mixed, "ewc") is None, "no other one learns five tasks"

    def test_a_baseline_without_runs_is_replaced_by_the_first(self, table):
        made = table(online=LOW, er_5120=HIGH, ewc=[])
        assert forest.of_table(made, "er-5120").baseline.variant == "er-5120"
        assert forest.of_table(made, "ewc").baseline.variant == "online"

    def test_the_plot_is_text_with_the_page_colours(self, table):
        found = forest.of_table(table(online=LOW, er_5120=HIGH, ewc=NEAR))
        text = forest.plot(found, "v0")
        assert text.startswith(
            '<svg role="img" aria-label="RA: differences from ONLINE with 95% intervals, in points: '
        )
        assert "ER_5120 +2.16, better; EWC +0.16, not decided" in text
        for used in ("var(--reproduced", "var(--inconclusive", "currentColor", "better is to the right"):
            assert used in text
        assert text == forest.plot(found, "v0")

    def test_one_far_variant_does_not_hide_the_others(self, table):
        found = forest.of_table(table(online=[(70.0, 5.0), (70.0, 6.0)], er_5120=HIGH, ewc=NEAR, gem_5120=LOW), "ewc")
        low, high = forest.edges(found.contrasts)
        assert -20 < low < 0 < high < 5
        assert forest.edges([]) == (-1.0, 1.0)

    def test_better_is_to_the_left_where_lower_is_better(self, table):
        found = forest.of_table(table(("forgetting",), online=LOW, er_5120=HIGH))
        assert "better is to the left" in forest.plot(found)
        assert found.contrasts[0].decision == "better"
