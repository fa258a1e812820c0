"""A trial by episodes: reports, stops and continuations, learning, refused settings, and the files it writes."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from episode_references import begin, make_trial

from clray.episodes import export
from clray.episodes.benchmarks import BENCHMARKS
from clray.episodes.evaluation import in_support, scores
from clray.episodes.learner import Learner
from clray.episodes.methods.base import UpdateSettings
from clray.episodes.models import Model
from clray.episodes.networks import Dropout, Network
from clray.episodes.training import data, estimate, modules_of, resolve
from clray.errors import CheckpointError, DataError, DeclarationError, Diverged
from clray.execution import HasArtifacts
from clray.loading import load_sweep, sweep_names
from clray.metrics import Measurement, summarize
from clray.provenance import code_digest
from clray.training import run
from clray.trial import SettingError

SMALL = {"support": 4, "queries": 4}
TRIALS = {
    "meta_seq2seq": {},
    "no memory": {"memory": False},
    "no attention": {"attention": False},
    "no support loss": {"support_loss": False},
    "scan": {"benchmark": "scan_around_right", "settings": SMALL},
    "seq2seq": {
        "benchmark": "scan_split",
        "method": "seq2seq",
        "settings": {"split": "template_jump_around_right", "queries": 6},
    },
}


def values(measured: list[Measurement], metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in measured if m.metric == metric]


class TestDivergence:
    """Numbers that are not finite end a trial, and are never measured."""

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_a_rate_that_is_too_large(self, engine):
        training = begin(make_trial(episodes=3, lr=1e30, model={"embedding": 200}, engine=engine))
        with pytest.raises(Diverged) as caught:
            run(training)
        assert caught.value.task == 0
        assert 0 < caught.value.step <= 3
        json.loads(training.artifacts()["looks.json"])

    @pytest.mark.parametrize("name", TRIALS)
    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_a_loss_that_is_not_finite(self, name, engine):
        training = begin(make_trial(**TRIALS[name], episodes=4, engine=engine))
        training._learn_next()
        with torch.no_grad():
            training.learner.network.decoder.out.bias.fill_(float("inf"))
        with pytest.raises(Diverged, match="loss not finite after 2 examples, in task 1"):
            training.advance()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_was_measured_before_is_returned_first(self, value):
        training = begin(make_trial(episodes=5, evaluate=1))
        observe, done = training.learner.observe, []

        def spoiling(episode):
            loss = observe(episode)
            done.append(loss)
            if len(done) == 3:
                with torch.no_grad():
                    next(training.learner.network.parameters())[0, 0] = value
            return loss

        training.learner.observe = spoiling
        measured = training.advance()
        assert [step for step, _ in values(measured, "train_loss")] == [1, 2]
        other = begin(make_trial(episodes=5, evaluate=1))
        other.load_state_dict(training.state_dict())
        for each in (training, other):
            with pytest.raises(Diverged, match="weights not finite after 3 examples, in task 1"):
                each.advance()

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_answers_that_cannot_be_read(self, engine):
        training = begin(make_trial(episodes=1, engine=engine))
        with torch.no_grad():
            for parameter in training.learner.network.decoder.out.parameters():
                parameter.fill_(3e38)
        training.since = 1
        with pytest.raises(Diverged, match="logits not finite"):
            training._report()
        assert json.loads(training.artifacts()["looks.json"])["queries"] == []


class TestReports:
    def test_at_episode_1_at_every_so_many_and_at_the_end(self):
        measured = run(begin(make_trial(episodes=7, evaluate=3)))
        for metric in ("train_loss", "val_retrieval", "val_generalize"):
            assert [step for step, _ in values(measured, metric)] == [1, 3, 6, 7]
        assert [step for step, _ in values(measured, "test_accuracy")] == [7]

    def test_only_at_the_end_if_so_declared(self):
        measured = run(begin(make_trial(episodes=4)))
        assert [step for step, _ in values(measured, "train_loss")] == [4]

    def test_the_loss_is_the_mean_since_the_last_report(self):
        each = values(run(begin(make_trial(episodes=4, evaluate=1))), "train_loss")
        some = values(run(begin(make_trial(episodes=4, evaluate=2))), "train_loss")
        assert some[2][1] == pytest.approx((each[2][1] + each[3][1]) / 2)

    def test_they_change_nothing(self):
        often, once = (run(begin(make_trial(episodes=4, evaluate=every)))[-4:] for every in (1, "after_task"))
        assert [m for m in often if m.metric != "train_loss"] == [m for m in once if m.metric != "train_loss"]

    def test_without_support_loss_nothing_is_retrieved(self):
        measured = run(begin(make_trial(support_loss=False)))
        assert not values(measured, "val_retrieval")
        assert values(measured, "val_generalize")
        assert set(summarize(measured)) == {"TestAcc", "ValAccGeneralize"}

    def test_a_standard_network_has_only_its_test(self):
        assert set(summarize(run(begin(make_trial(**TRIALS["seq2seq"]))))) == {"TestAcc"}

    def test_the_test_of_mutual_exclusivity_is_generalisation_in_validation(self):
        found = summarize(run(begin(make_trial(episodes=2))))
        assert found["TestAcc"] == found["ValAccGeneralize"]


@pytest.fixture(scope="module")
def scored():
    benchmark = BENCHMARKS["mutual_exclusivity"](name="mutual_exclusivity").build()
    torch.manual_seed(0)
    network = Network(len(benchmark.commands), len(benchmark.actions), Model(embedding=8))
    learner = Learner(network, UpdateSettings(), "fused", Dropout(0.0, np.random.default_rng(0)))
    return benchmark, learner, benchmark.draw(np.random.default_rng(0))


class TestScores:
    def test_shown_are_the_queries_whose_command_is_in_the_support_set(self, scored):
        benchmark, _, drawn = scored
        asked = drawn.query.followed_by(drawn.support, (benchmark.commands.sos, benchmark.actions.sos))
        assert in_support(drawn, asked).tolist() == [False] * 20 + [True] * 3

    def test_an_empty_group_has_no_figure(self, scored):
        benchmark, learner, drawn = scored
        retrieval, generalize = scores(learner, drawn, drawn.query, benchmark, memory=True)
        assert math.isnan(retrieval)
        assert generalize == 0
        retrieval, generalize = scores(learner, drawn, drawn.support, benchmark, memory=True)
        assert retrieval == 0
        assert math.isnan(generalize)

    def test_parts_of_a_test_are_scored_as_the_whole(self, scored, monkeypatch):
        from clray.episodes import evaluation as module

        benchmark, learner, drawn = scored
        asked, found = drawn.query, []
        original = learner.form.right
        monkeypatch.setattr(learner.form, "right", lambda *a, **k: found.append(a[1].steps) or original(*a, **k))
        monkeypatch.setattr(module, "_AT_ONCE", 7)
        scores(learner, drawn, asked, benchmark, memory=True)
        assert found == [asked.commands.shape[1]] * 3


@pytest.mark.parametrize("name", TRIALS)
def test_stopped_anywhere_it_ends_with_the_same_bits(name, monkeypatch):
    """A stop after every episode, and a new process's worth of objects after each."""
    trial = make_trial(**{"episodes": 5, "evaluate": 2, "decay_every": 2, **TRIALS[name]})
    whole = begin(trial)
    wanted = run(whole)
    monkeypatch.setattr("clray.episodes.trial._STOP_AFTER", 1.5)
    monkeypatch.setattr("clray.episodes.trial.time", Ticking())
    training, measured, stops = begin(trial), [], 0
    while training.progress < 1:
        stops += 1
        kept = io.BytesIO()
        torch.save(training.state_dict(), kept)
        training = begin(trial)
        training.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
        measured += training.advance()
    assert stops == 5 + len(whole.tested)  # the parts of the test are stops of their own
    assert measured == wanted
    for ours, theirs in zip(training.learner.network.parameters(), whole.learner.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name, settings in TRIALS.items() if "benchmark" not in settings])
def test_both_engines_learn_the_same(name):
    found = {}
    for engine in ("eager", "fused"):
        training = begin(make_trial(episodes=5, evaluate=1, engine=engine, **TRIALS[name]))
        found[engine] = run(training)
        assert training.facts["engine"] == engine
    for eager, quick in zip(found["eager"], found["fused"], strict=True):
        assert quick[:4] == eager[:4]
        assert quick.value == pytest.approx(eager.value, abs=1e-4)


class Ticking:
    """A clock that is read once a second: each stop comes after one episode."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_the_process_generators_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    run(begin(make_trial()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_seeds_differ_and_repeat():
    losses = [values(run(begin(make_trial(seed=seed))), "train_loss") for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_the_rate_falls_and_adam_begins_anew():
    training = begin(make_trial(episodes=5, decay_every=2, lr=0.01))
    rates, moments = [], []
    for _ in range(5):
        training._learn_next()
        rates.append(training.learner.optimizer.param_groups[0]["lr"])
        moments.append(bool(training.learner.optimizer.state))
    assert rates == pytest.approx([0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert moments == [True, False, True, False, True]


def test_gradients_are_clipped_apart():
    training = begin(make_trial(clip=1e-3, model={"dropout": 0.0}))
    learner, norms = training.learner, []
    step = learner.optimizer.step

    def watched() -> None:
        norms.append([float(torch.nn.utils.get_total_norm([p.grad for p in part])) for part in learner.parameters])
        step()

    learner.optimizer.step = watched
    training._learn_next()
    assert norms == [pytest.approx([1e-3, 1e-3], rel=1e-3)]


def test_it_learns_what_the_support_set_shows():
    """One word of four, of mutual exclusivity: what is asked can be looked up."""
    trial = make_trial(
        episodes=400, lr=0.01, evaluate=400, model={"embedding": 24, "layers": 1, "dropout": 0.0},
        settings={"queries": 8},
    )  # fmt: skip
    measured = run(begin(trial))
    (first, at_first), (_, later) = values(measured, "train_loss")
    assert first == 1
    assert later < 0.75 * at_first


class TestSettings:
    def declared(self, **changes):
        base = {"benchmark": {"name": "scan_length"}, "model": {}, "method": "meta_seq2seq", "hyperparameters": {}}
        return {**base, **changes}

    def test_defaults_are_the_official_ones(self):
        found = resolve(self.declared())
        assert found["model"] == {"embedding": 200, "layers": 2, "dropout": 0.5}
        assert found["benchmark"] == {"name": "scan_length", "support": 100, "queries": 20, "validation": 5}
        assert found["hyperparameters"] == {
            "episodes": 10_000, "lr": 0.001, "decay_every": 5_000, "decay": 0.1, "clip": 50.0,
            "memory": True, "attention": True, "support_loss": True,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"benchmark": {"name": "scan_lenght"}}, "'scan_lenght' is not a benchmark"),
            ({"benchmark": {}}, "is not a benchmark"),
            ({"method": "gem"}, "'gem' is not a method"),
            ({"method": "seq2seq"}, "'seq2seq' is not for scan_length"),
            ({"benchmark": {"name": "scan_split", "split": "length"}}, "'meta_seq2seq' is not for scan_split"),
            ({"benchmark": {"name": "scan_split", "split": "jump"}, "method": "seq2seq"}, "'simple', 'length'"),
            ({"benchmark": {"name": "scan_split"}, "method": "seq2seq"}, "this setting is missing"),
            ({"benchmark": {"name": "scan_length", "tasks": 3}}, "not a setting of this benchmark"),
            ({"model": {"embedding": 0}}, "greater than or equal to 1"),
            ({"model": {"dropout": 1.0}}, "less than 1"),
            ({"hyperparameters": {"episodes": 0}}, "greater than or equal to 1"),
            ({"hyperparameters": {"steps": 5}}, "not a setting of this method"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes, message):
        with pytest.raises(SettingError) as caught:
            resolve(self.declared(**changes))
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("section", "key", "value", "message"),
        [
            ("hyperparameters", "lr", float("inf"), "finite number"),
            ("hyperparameters", "lr", True, "expected a number, neither true nor false"),
            ("hyperparameters", "episodes", 10**12, "less than or equal to 1000000000"),
            ("hyperparameters", "episodes", True, "expected a number, neither true nor false"),
            ("hyperparameters", "decay", float("nan"), "finite number"),
            ("hyperparameters", "clip", float("inf"), "finite number"),
            ("benchmark", "validation", 10**12, "less than or equal to 1000"),
            ("benchmark", "queries", True, "expected a number, neither true nor false"),
            ("model", "embedding", 10**12, "less than or equal to 16384"),
            ("model", "layers", 10**12, "less than or equal to 100"),
            ("model", "dropout", float("nan"), "finite number"),
        ],
    )
    def test_numbers_without_sense_are_refused_when_planned(self, section, key, value, message):
        declared = self.declared()
        declared[section] = {**declared[section], key: value}
        with pytest.raises(SettingError) as caught:
            resolve(declared)
        assert list(caught.value.keys) == [key]
        assert message in str(caught.value)

    def test_what_a_trial_cannot_be_is_refused(self):
        trial = make_trial()
        for changes, message in (
            ({"task_order": [0]}, "task_orders: episodes have no order"),
            ({"randomness": "official"}, "randomness: official"),
        ):
            with pytest.raises(DeclarationError, match=message):
                begin(trial.model_copy(update=changes))

    def test_the_simple_split_needs_its_files(self, monkeypatch):
        monkeypatch.delenv("CLRAY_DATA", raising=False)
        trial = make_trial("scan_split", "seq2seq", settings={"split": "simple"})
        with pytest.raises(DataError, match="defined by its official files"):
            data(trial, fetch=True)

    def test_every_declared_sweep_resolves_and_has_an_estimate(self):
        names = [name for name in sweep_names() if name.startswith("metaseq2seq/")]
        assert len(names) == 6
        for name in names:
            for cell in load_sweep(name).cells:
                assert 60 < estimate(cell.trial) < 4 * 3600


def test_a_foreign_checkpoint_is_refused():
    state = begin(make_trial()).state_dict()
    for foreign in (
        {},
        {**state, "learner": {}},
        begin(make_trial(memory=False)).state_dict(),
        begin(make_trial(model={"embedding": 6})).state_dict(),
    ):
        with pytest.raises(CheckpointError, match="no checkpoint of a meta_seq2seq trial"):
            begin(make_trial()).load_state_dict(foreign)


def test_the_code_of_a_record_is_its_methods_and_its_loops():
    trials = [make_trial().model_copy(update={"method": name}) for name in ("meta_seq2seq", "seq2seq")]
    assert len({code_digest(trial) for trial in trials}) == 2
    assert all("clray.episodes.trial" in modules_of(trial) for trial in trials)


@pytest.fixture(scope="module", params=["meta_seq2seq", "no memory", "no attention", "seq2seq"])
def training(request):
    training = begin(make_trial(**TRIALS[request.param]))
    run(training)
    return training


class TestWhatIsKept:
    def test_the_network_in_the_official_layout(self, training):
        assert isinstance(training, HasArtifacts)
        kept = torch.load(io.BytesIO(training.artifacts()["checkpoint.tar"]), weights_only=True)
        network = training.learner.network
        assert kept["num_episodes"] == kept["episode"] == 3
        assert kept["disable_memory"] == (not training.method.memory)
        assert kept["use_attention"] == training.trial.hyperparameters["attention"]
        assert kept["input_lang"]["symbol2index"]["SOS"] == kept["input_lang"]["n_symbols"] - 2
        shared = [name for name in kept["encoder_state_dict"] if name.startswith("query_embedding.")]
        assert bool(shared) == training.method.memory
        for name in shared:
            twin = name.replace("query_embedding", "suppport_embedding")
            assert torch.equal(kept["encoder_state_dict"][name], kept["encoder_state_dict"][twin])
        torch.manual_seed(9)
        other = training.method.network(
            kept["input_lang"]["n_symbols"], kept["output_lang"]["n_symbols"], Model(**training.trial.model)
        )
        export.load_official(other, kept["encoder_state_dict"], kept["decoder_state_dict"])
        for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_what_it_looks_at(self, training):
        looks = json.loads(training.artifacts()["looks.json"])
        if training.trial.method == "seq2seq":
            assert looks == {"support": [], "queries": []}
            return
        assert len(looks["support"]) == 3
        assert len(looks["queries"]) == 8
        for query in looks["queries"]:
            if not training.method.memory:
                assert "attention" not in query
                continue
            assert len(query["attention"]) == len(query["command"].split()) + 1
            assert all(len(look) == 3 and sum(look) == pytest.approx(1, abs=1e-3) for look in query["attention"])


def test_a_finished_trial_leaves_its_files_and_export_writes_one(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from clray.cli import app

    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(
        "version: 1\npaper: metaseq2seq\ntrack: episodes\nbenchmark: {name: mutual_exclusivity}\n"
        "model: {embedding: 8}\nseeds: [0]\nmetrics: [TestAcc]\nvariants: {meta: {method: meta_seq2seq, episodes: 2}}\n"
    )
    monkeypatch.chdir(tmp_path)
    cli = CliRunner()
    ran = cli.invoke(app, ["run", str(sweep), "--variant", "meta", "--json"], catch_exceptions=False)
    trial = json.loads(ran.stdout)["trial"]
    assert cli.invoke(app, ["export", trial]).stdout.split() == ["checkpoint.tar", "looks.json"]
    assert cli.invoke(app, ["export", trial, "checkpoint.tar", "net_ME.tar"]).exit_code == 0
    assert torch.load(tmp_path / "net_ME.tar", weights_only=True)["episode_type"] == "ME"
    for arguments, message in (
        (["export", "0" * 16], "no file of such a trial"),
        (["export", trial, "weights"], "it has no file"),
    ):
        failed = cli.invoke(app, arguments)
        assert message in str(failed.exception)
    table = cli.invoke(app, ["table", str(sweep)], catch_exceptions=False)
    assert table.exit_code == 0
    assert "test" in table.stdout.lower()
