"""A language trial: its phases, stops and continuations, the part of each method, and refused settings."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from language_trials import TASKS, begin, make_trial

from clray.errors import CheckpointError, ClrayError, DataError, DeclarationError, Diverged
from clray.execution import HasArtifacts
from clray.language import export
from clray.language.methods import METHODS
from clray.language.training import data, estimate, modules_of, resolve, train
from clray.loading import load_sweep
from clray.metrics import Measurement, accuracy_matrix, summarize
from clray.planning import plan
from clray.provenance import code_digest
from clray.store import Store
from clray.training import run
from clray.trial import SettingError

VARIANTS = {
    "lamol": {"method": "lamol", "gamma": 0.5},
    "lamol, a token for each task": {"method": "lamol", "gamma": 0.5, "tokens": "task"},
    "lamol, real samples": {"method": "lamol", "gamma": 0.5, "samples": "real"},
    "lamol, no samples": {"method": "lamol", "gamma": 0},
    "finetune": {"method": "finetune"},
    "multitask": {"method": "multitask"},
    "ewc": {"method": "ewc"},
    "ewc, corrected": {"method": "ewc", "form": "corrected"},
    "mas": {"method": "mas"},
    "mas, corrected": {"method": "mas", "form": "corrected"},
    "gem": {"method": "gem", "memory": 0.4},
    "bucketed": {"method": "finetune", "batching": "bucketed", "token_budget": 60},
    "separated": {"method": "lamol", "gamma": 0.5, "use_sep": True},
}


class Ticking:
    """A clock that is read once a second: each stop comes after one batch."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("name", VARIANTS)
def test_stopped_anywhere_it_ends_with_the_same_bits(name, monkeypatch):
    """A stop after every batch, and a new process's worth of objects after each."""
    trial = make_trial(**VARIANTS[name])
    whole = begin(trial)
    wanted = run(whole)
    monkeypatch.setattr("clray.language.trial._STOP_AFTER", 0.5)
    monkeypatch.setattr("clray.language.trial._TOKENS_AT_ONCE", {"cpu": 100})
    monkeypatch.setattr("clray.language.trial.time", Ticking())
    training, measured, stops = begin(trial), [], 0
    while training.progress < 1:
        stops += 1
        kept = io.BytesIO()
        torch.save(training.state_dict(), kept)
        training = begin(trial)
        training.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
        before = training.progress
        measured += training.advance()
        assert training.progress >= before
    assert stops > 6
    assert measured == wanted
    for ours, theirs in zip(training.learner.model.parameters(), whole.learner.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert training.artifacts() == whole.artifacts()


@pytest.mark.parametrize("name", [name for name in VARIANTS if "no samples" not in name])
def test_both_engines_learn_the_same(name):
    found = {}
    for engine in ("eager", "fused"):
        training = begin(make_trial(engine=engine, model={"dropout": 0.0}, **VARIANTS[name]))
        run(training)
        assert training.facts["engine"] == engine
        found[engine] = training.learner.model.state_dict()
    for parameter, plain in found["eager"].items():
        torch.testing.assert_close(found["fused"][parameter], plain, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_example_a_task_is_enough(name):
    settings = VARIANTS[name] | ({"memory": 1.0} if "memory" in VARIANTS[name] else {})
    measured = run(begin(make_trial(**settings, benchmark={"train_per_task": 1, "test_per_task": 1})))
    assert np.isfinite(accuracy_matrix(measured)[0][-1]).all()


class TestDivergence:
    """Numbers that are not finite end a trial, and are never measured."""

    @staticmethod
    def ending(training) -> tuple[list[Measurement], Diverged]:
        measured: list[Measurement] = []
        try:
            while training.progress < 1:
                measured += training.advance()
        except Diverged as error:
            return measured, error
        raise AssertionError("it has not diverged")

    @pytest.mark.parametrize("name", VARIANTS)
    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_a_rate_that_is_too_large(self, name, engine):
        training = begin(make_trial(engine=engine, **{**VARIANTS[name], "lr": 1e30, "clip": 1e30}))
        measured, error = self.ending(training)
        assert measured == []
        assert (error.what, error.task) in (("loss", training.visits[0][-1]), ("weights", training.visits[0][-1]))
        assert 0 < error.step <= sum(len(task.train) for task in training.tasks)

    def test_a_weight_that_no_loss_has_seen(self):
        training = begin(make_trial())
        with torch.no_grad():
            training.learner.model.transformer.wpe.weight[-1] = float("nan")
        measured, error = self.ending(training)
        assert (measured, error.what, error.task, error.step) == ([], "weights", 0, 12)

    def test_the_measurements_of_the_tasks_before_it_are_kept(self):
        training = begin(make_trial())
        measured: list[Measurement] = []
        while training.visit == 0:
            measured += training.advance()
        with torch.no_grad():
            training.learner.model.transformer.wpe.weight[-1] = float("inf")
        more, error = self.ending(training)
        assert (more, error.what, error.task, error.step) == ([], "weights", 1, 24)
        assert {m.eval_task for m in measured} == {0, 1}

    @pytest.mark.parametrize("answer_top_k", [1, 20])
    def test_answers_that_cannot_be_drawn(self, answer_top_k):
        training = begin(make_trial(answer_top_k=answer_top_k))
        while training.phase != "test":
            getattr(training, f"_{training.phase}")(float("inf"))
        self.spoil(training)
        _, error = self.ending(training)
        assert (error.what, error.task) == ("logits", 0)

    def test_pseudo_samples_that_cannot_be_drawn(self):
        training = begin(make_trial("lamol", gamma=1.0))
        while training.visit == 0:
            training.advance()
        self.spoil(training)
        measured, error = self.ending(training)
        assert (measured, error.what, error.task) == ([], "logits", 1)

    @staticmethod
    def spoil(training) -> None:
        """Weights that are finite, and whose products are not."""
        with torch.no_grad():
            for parameter in training.learner.model.parameters():
                parameter.fill_(1e30)

    @pytest.mark.parametrize("method", ["ewc", "mas"])
    def test_importance_weights_that_overflow(self, method):
        training = begin(make_trial(method))
        while training.visit == 0:
            training.advance()
        next(iter(training.method.importance.omega.values())).fill_(float("inf"))
        measured, error = self.ending(training)
        assert (measured, error.what, error.task, error.step) == ([], "importance weights", 1, 12)

    def test_a_program_of_gem_that_cannot_be_solved_says_what_helps(self):
        training = begin(make_trial("gem", memory=0.5))
        training.learner.task = 1
        memories = torch.tensor([[-1e15, 0.0], [-1e15, 0.0]])
        with pytest.raises(ClrayError, match=r"task 2 \(scan.count\).*not positive definite.*lower lr.*larger memory"):
            training.method._projected(torch.tensor([1e15, 1.0]), memories)
        with pytest.raises(Diverged, match="gradients not finite after 0 examples, in task 2"):
            training.method._projected(torch.tensor([1e15, 1.0]), memories * float("inf"))

    def test_a_decay_that_takes_all_of_the_weights_is_no_division_by_zero(self):
        run(begin(make_trial(lr=0.5, weight_decay=2.0)))


class TestOneAfterTheOther:
    def test_every_task_is_tested_after_every_task(self):
        matrix, _ = accuracy_matrix(run(begin(make_trial(tasks=TASKS))))
        assert matrix.shape == (3, 3)
        assert np.isfinite(matrix).all()

    def test_the_order_is_the_declared_one(self):
        training = begin(make_trial(tasks=TASKS, order=[2, 0, 1]))
        assert [task.name for task in training.tasks] == [TASKS[2], TASKS[0], TASKS[1]]

    def test_the_same_vocabulary_in_every_order(self):
        one, other = (begin(make_trial(tasks=TASKS, order=order)) for order in (None, [2, 0, 1]))
        assert one.learner.vocabulary.fingerprint == other.learner.vocabulary.fingerprint

    def test_multitask_is_one_training_and_one_test(self):
        measured = run(begin(make_trial("multitask", tasks=TASKS)))
        matrix, _ = accuracy_matrix(measured)
        assert np.isnan(matrix[:2]).all()
        assert np.isfinite(matrix[2]).all()
        assert set(summarize(measured)) >= {"ACC", "RA"}

    def test_every_task_begins_with_a_new_optimizer_and_schedule(self):
        training = begin(make_trial())
        rates = {0: [], 1: []}
        observe = training.learner.observe

        def watched(*arguments):
            rates[training.visit].append(training.learner.optimizer.param_groups[0]["lr"])
            return observe(*arguments)

        training.learner.observe = watched
        run(training)
        assert rates[0] == rates[1]
        assert rates[0][0] > rates[0][-1]


class TestPseudoSamples:
    @pytest.mark.parametrize(("gamma", "each"), [(0.2, 1), (0.5, 3), (0.9, 5), (0, 0)])
    def test_a_share_of_the_new_task_divided_among_the_old_ones(self, gamma, each):
        """ceil(12 γ), less what cannot be divided by two."""
        training = begin(make_trial("lamol", tasks=TASKS, gamma=gamma))
        assert training.method.samples_wanted(2) == [0] * each + [1] * each
        assert training.method.samples_wanted(0) == []

    @pytest.mark.parametrize(
        ("task", "gamma", "count"),
        [
            ("sst", 0.2, 1384),
            ("srl", 0.2, 1283),
            ("woz.en", 0.2, 508),
            ("sst", 0.05, 346),
            ("srl", 0.05, 321),
            ("woz.en", 0.05, 127),
        ],
    )
    def test_the_official_counts(self, task, gamma, count):
        """docs/papers/lamol.md: of the second task."""
        from types import SimpleNamespace

        from clray.language.methods.lamol import Lamol
        from clray.language.tasks import TASKS as KNOWN

        examples = SimpleNamespace(train=range(KNOWN[task].sizes[0]))
        method = Lamol(Lamol.Settings(gamma=gamma), SimpleNamespace(tasks=[examples, examples, examples]))
        assert len(method.samples_wanted(1)) == count
        assert len(method.samples_wanted(2)) == count - count % 2

    def test_they_begin_with_the_token_of_their_task(self):
        for tokens, names in (("shared", {"__gen__"}), ("task", {f"__{task}__" for task in TASKS[:2]})):
            training = begin(make_trial("lamol", tasks=TASKS, gamma=0.5, tokens=tokens))
            run(training)
            ids = training.learner.generation_ids
            assert names <= set(ids)
            for after, of, sample in training.samples:
                assert of < after
                assert sample[0] == ids[training.method.generation_token(TASKS[of])]

    def test_they_do_not_depend_on_how_many_are_written_at_once(self, monkeypatch):
        trial = make_trial("lamol", gamma=1.0)
        whole = begin(trial)
        run(whole)
        monkeypatch.setattr("clray.language.trial._TOKENS_AT_ONCE", {"cpu": 100})
        parts = begin(trial)
        run(parts)
        assert whole.samples == parts.samples
        assert len(whole.samples) == 12

    def test_all_are_kept_to_be_looked_at_and_the_dropped_say_why(self):
        training = begin(make_trial("lamol", gamma=1.0))
        run(training)
        samples = export.read_samples(training.artifacts()["samples.json"])
        assert len(samples) == 12
        for sample in samples:
            assert (sample.before, sample.of) == (TASKS[1], TASKS[0])
            assert (sample.answer is None) == bool(sample.dropped)

    def test_what_is_learned_is_the_task_and_what_was_kept(self, monkeypatch):
        monkeypatch.setattr("clray.language.trial.parse_sample", lambda ids, *_: None if sum(ids) % 2 else _parsed(ids))
        training = begin(make_trial("lamol", gamma=1.0))
        sizes = []
        monkeypatch.setattr(training.learner, "begin", lambda count, penalty: sizes.append(count) or _stop())
        with pytest.raises(_Stop):
            training.advance()
        assert sizes == [12]
        training.visit, training.written = 1, [[1, 2], [3, 4], [2, 2]]
        with pytest.raises(_Stop):
            training._begin_training()
        assert sizes == [12, 13]

    def test_real_samples_are_examples_of_the_earlier_tasks(self):
        training = begin(make_trial("lamol", tasks=TASKS, gamma=0.5, samples="real"))
        assert training.method.samples_wanted(2) == []
        assert training.method.real_samples(2) == [(0, 3), (1, 3)]
        for visit in (0, 1, 2):
            training._know(visit)
        training.visit = 2
        found = [row.cqa for row in training._relearned()]
        own = [[row.cqa for row in training.learner.encoded(task.train, 0)] for task in training.tasks]
        assert all(row in own[0] for row in found[:3])
        assert all(row in own[1] for row in found[3:])


class _Stop(Exception):
    pass


def _stop():
    raise _Stop


def _parsed(ids):
    from clray.language.encoding import Encoded

    return Encoded(list(ids), list(ids), list(ids), list(ids), list(ids))


class TestTests:
    def test_greedy_answers_are_right_where_the_model_knows_them(self):
        """Ten epochs of twelve examples: the model knows them by heart, and is asked for them."""
        training = begin(make_trial(tasks=TASKS[:1], epochs=60, answer_top_k=1, lr=0.01, model={"dropout": 0.0}))
        training.tasks[0] = training.tasks[0]._replace(test=training.tasks[0].train[:6])
        assert summarize(run(training))["ACC"] == 1

    def test_answers_do_not_depend_on_what_is_answered_beside_them(self, monkeypatch):
        trial = make_trial()
        whole = run(begin(trial))
        monkeypatch.setattr("clray.language.trial._TOKENS_AT_ONCE", {"cpu": 1})
        assert run(begin(trial)) == whole

    def test_predictions_stand_beside_the_right_answers(self):
        training = begin(make_trial())
        run(training)
        predictions = export.read_predictions(training.artifacts()["predictions.json"])
        assert [p.of for p in predictions] == [TASKS[0]] * 6 + [TASKS[1]] * 6
        examples = [example for task in training.tasks for example in task.test]
        for prediction, example in zip(predictions, examples, strict=True):
            assert prediction.id == example.id
            assert [answer.strip() for answer in prediction.answers] == list(example.answers)

    def test_the_scores_in_the_official_layout(self):
        training = begin(make_trial())
        measured = run(training)
        kept = training.artifacts()
        last = export.read_metrics(kept["metrics.json"])
        assert set(last[0]) == set(TASKS[:2])
        by_hand = {m.eval_task: m.value for m in measured if m.metric == "em" and m.trained_tasks == 2}
        assert [last[0][task]["em"] for task in TASKS[:2]] == pytest.approx([100 * by_hand[0], 100 * by_hand[1]])
        assert json.loads(kept[f"metrics.{TASKS[0]}.json"]) != []

    def test_accuracy_is_the_official_metric(self):
        measured = run(begin(make_trial()))
        for m in measured:
            if m.metric == "accuracy":
                assert m._replace(metric="em") in measured


def test_bfloat16_learns_nearly_the_same():
    losses = {}
    for precision in ("float32", "bfloat16"):
        measured = run(begin(make_trial(epochs=3, precision=precision)))
        losses[precision] = [m.value for m in measured if m.metric == "train_loss"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_a_gpu_without_bfloat16_is_refused(monkeypatch):
    """It would emulate it, slowly."""
    monkeypatch.setattr("clray.language.trial.has_bfloat16", lambda: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Tesla V100")
    trial = make_trial(precision="bfloat16")
    with pytest.raises(DeclarationError, match="bfloat16: Tesla V100 has none but by emulation; allowed: float32"):
        train(trial, data(trial, fetch=False), "cuda")


def test_the_process_generators_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    run(begin(make_trial("lamol", gamma=0.5)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_seeds_differ_and_repeat():
    losses = [[m for m in run(begin(make_trial(seed=seed))) if m.metric == "train_loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


class TestSettings:
    def declared(self, **changes):
        base = {"benchmark": {"name": "text-stream", "tasks": ["sst"]}, "model": {"name": "gpt2"}}
        return {**base, "method": "lamol", "hyperparameters": {}, **changes}

    def test_defaults_are_the_official_ones(self):
        found = resolve(self.declared())["hyperparameters"]
        assert found == {
            "epochs": 9, "lr": 6.25e-5, "weight_decay": 0.01, "eps": 1e-4, "clip": 1.0, "warmup": 0.005,
            "answer_weight": 5.0, "batching": "as_coded", "token_budget": 11368, "min_batch": 4, "min_steps": 1500,
            "use_sep": False, "top_k": 20, "answer_top_k": 20, "temperature": 1.0,
            "gamma": 0.2, "tokens": "shared", "samples": "generated", "lm_lambda": 0.25,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"benchmark": {"name": "stream"}}, "'stream' is not a benchmark"),
            ({"benchmark": {"name": "text-stream", "tasks": ["sts"]}}, "'sts' is not a task"),
            ({"benchmark": {"name": "text-stream", "tasks": ["sst", "sst"]}}, "stands twice"),
            ({"benchmark": {"name": "text-stream", "tasks": []}}, "at least 1"),
            ({"method": "er"}, "'er' is not a method"),
            ({"hyperparameters": {"gamma": -1}}, "greater than or equal to 0"),
            ({"hyperparameters": {"tokens": "own"}}, "'shared' or 'task'"),
            ({"method": "ewc", "hyperparameters": {"form": "fixed"}}, "'as_coded' or 'corrected'"),
            ({"method": "gem", "hyperparameters": {"gamma": 0.2}}, "not a setting of this method"),
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
            ("hyperparameters", "lr", float("nan"), "finite number"),
            ("hyperparameters", "lr", 10**400, "expected a number"),
            ("hyperparameters", "lr", True, "expected a number, neither true nor false"),
            ("hyperparameters", "epochs", True, "expected a number, neither true nor false"),
            ("hyperparameters", "epochs", 10**12, "less than or equal to 1000000"),
            ("hyperparameters", "clip", float("inf"), "finite number"),
            ("hyperparameters", "gamma", float("inf"), "finite number"),
            ("hyperparameters", "gamma", 10**12, "less than or equal to 100"),
            ("hyperparameters", "token_budget", 0, "greater than or equal to 1"),
            ("hyperparameters", "temperature", 0, "greater than or equal to 0.000001"),
            ("hyperparameters", "top_k", 10**12, "less than or equal to 10000000"),
            ("benchmark", "train_per_task", 10**12, "less than or equal to 1000000000"),
            ("benchmark", "test_per_task", True, "expected a number, neither true nor false"),
            ("benchmark", "seed", 2**63, "less than or equal to 9223372036854775807"),
            ("model", "layers", 10**12, "less than or equal to 1000"),
            ("model", "width", 10**12, "less than or equal to 65536"),
            ("model", "width", 65_536, "parameters; allowed: up to 10,000,000,000"),
            ("model", "heads", 3, "3 do not divide a width of 256; allowed: its divisors, such as 1, 2, 4"),
            ("model", "vocabulary_size", 10**12, "less than or equal to 1000000"),
            ("model", "positions", 10**12, "less than or equal to 65536"),
            ("model", "dropout", float("nan"), "finite number"),
        ],
    )
    def test_numbers_without_sense_are_refused_when_planned(self, section, key, value, message):
        declared = self.declared(model={"name": "scratch"})
        declared[section] = {**declared[section], key: value}
        with pytest.raises(SettingError) as caught:
            resolve(declared)
        assert key in (*caught.value.keys, *str(caught.value).replace(":", ",").split(", "))
        assert message in str(caught.value)

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_has_a_budget_that_is_a_number_of_tokens(self, method):
        for budget in (0, -1, True, 10**12):
            with pytest.raises(SettingError):
                resolve(self.declared(method=method, hyperparameters={"token_budget": budget}))

    def test_what_a_trial_cannot_be_is_refused(self):
        for changes, message in (
            ({"evaluate": 100}, "evaluate: 100: text-stream allows only after_task"),
            ({"randomness": "official"}, "randomness: official"),
        ):
            trial = make_trial().model_copy(update=changes)
            with pytest.raises(DeclarationError, match=message):
                begin(trial)

    def test_a_trial_needs_its_texts(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        with pytest.raises(DataError, match="sst"):
            data(make_trial(tasks=["sst"]), fetch=False)

    def test_a_checkpoint_of_another_trial_is_refused(self):
        training = begin(make_trial("lamol", gamma=0.5, tokens="task"))
        training.advance()
        for other in (make_trial(model={"width": 8}), make_trial("ewc")):
            with pytest.raises(CheckpointError, match="this is no checkpoint of a"):
                begin(other).load_state_dict(training.state_dict())
        with pytest.raises(CheckpointError):
            begin(make_trial()).load_state_dict({"trial": make_trial().declaration, "at": [0, "train", 0, 0]})

    def test_memory_that_runs_out_is_not_the_checkpoints_fault(self, monkeypatch):
        """Else a trial would begin again where a larger share of the GPU is all that it needs."""
        training = begin(make_trial())
        state = training.state_dict()

        def full(_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(training.learner, "load_state_dict", full)
        with pytest.raises(torch.OutOfMemoryError):
            training.load_state_dict(state)

    def test_an_example_too_long_is_named_before_training(self):
        with pytest.raises(DataError, match=r"^scan.actions: example .* the model reads at most 40"):
            begin(make_trial(tasks=TASKS, model={"positions": 40}))

    def test_the_track_knows_its_files(self):
        ewc, gem = make_trial("ewc"), make_trial("gem", memory=0.5)
        assert modules_of(ewc) == ["clray.language.methods.ewc", "clray.language.trial"]
        assert code_digest(ewc) != code_digest(gem)
        assert estimate(make_trial("gem", epochs=4, memory=0.5)) > estimate(make_trial(epochs=4))
        assert estimate(make_trial(epochs=4)) > estimate(make_trial(epochs=2)) > 0

    def test_artifacts_are_kept(self):
        assert isinstance(begin(make_trial()), HasArtifacts)


SWEEP = """\
version: 1
paper: lamol
track: language
benchmark: {name: text-stream, tasks: [scan.first, scan.count, scan.actions]}
model: {name: scratch}
precision: %s
seeds: [0]
task_orders: %s
variants:
  finetune: {method: finetune}
"""


class TestOrders:
    def orders(self, tmp_path, orders, precision="float32"):
        path = tmp_path / "sweep.yaml"
        path.write_text(SWEEP % (precision, orders))
        return [cell.trial.task_order for cell in load_sweep(path).cells]

    def test_by_name_or_number(self, tmp_path):
        assert self.orders(tmp_path, "[identity, [2, 0, 1]]") == [None, [2, 0, 1]]
        assert self.orders(tmp_path, "[[scan.actions, scan.first, scan.count]]") == [[2, 0, 1]]

    def test_the_benchmarks_own_is_one_trial_however_it_is_written(self, tmp_path):
        assert self.orders(tmp_path, "[[scan.first, scan.count, scan.actions]]") == [None]

    @pytest.mark.parametrize(
        "order", ["[scan.first]", "[scan.first, scan.first, scan.count]", "[0, 1, 3]", "[a, b, c]"]
    )
    def test_each_task_once(self, tmp_path, order):
        with pytest.raises(DeclarationError, match=r"each of scan.first, scan.count, scan.actions once"):
            self.orders(tmp_path, f"[{order}]")

    def test_a_precision_is_the_tracks(self, tmp_path):
        assert self.orders(tmp_path, "[identity]", "bfloat16") == [None]
        path = tmp_path / "sweep.yaml"
        path.write_text(path.read_text().replace("language", "episodes"))
        with pytest.raises(DeclarationError, match="'bfloat16' is not for episodes"):
            _ = load_sweep(path).cells


def test_measured_are_rates(tmp_path):
    for m in run(begin(make_trial())):
        assert isinstance(m, Measurement)
        assert m.metric == "train_loss" or 0 <= m.value <= 1


def test_variants_with_models_of_their_own_are_planned_with_their_own_data(tmp_path):
    """A model's vocabulary and weights are data of this track: two variants may differ in them."""
    sweep = tmp_path / "two.yaml"
    sweep.write_text(
        "version: 1\npaper: lamol\ntrack: language\nseeds: [0]\nmetrics: [ACC]\n"
        "benchmark: {name: text-stream, tasks: [scan.first]}\nmodel: {layers: 1, width: 16, heads: 2}\n"
        "variants:\n  a: {method: finetune}\n  b: {method: finetune, model: {width: 32}}\n"
    )
    planned = plan({"two": load_sweep(sweep)}, Store(str(tmp_path / "results"))).trials
    assert [trial.data for trial in planned] == [data(trial.trial, fetch=False) for trial in planned]
    assert planned[0].data["fingerprint"] != planned[1].data["fingerprint"]
