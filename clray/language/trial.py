"""Training a language model task by task: one trial as a ``Training``.

Each visit of a task has four phases, any of which may be empty: ``replay`` (pseudo-samples of the tasks before it are
written), ``train``, ``consolidate`` (another look at the task's examples, for penalties) and ``test`` (all tasks of the
benchmark, those to come included, as the official ``test.py`` does). A phase advances by batches, so that a trial can
stop and go on within it.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from clray.errors import CheckpointError, DataError, DeclarationError
from clray.language import data as sources
from clray.language import models
from clray.language.benchmarks import BENCHMARKS
from clray.language.encoding import Encoded, encode, parse_sample
from clray.language.export import Prediction, Sample
from clray.language.learner import LanguageMethod, Learner, as_batch
from clray.language.losses import Batch
from clray.language.methods import find
from clray.language.scoring import as_compared, official, score
from clray.metrics import Measurement
from clray.spec import Trial
from clray.training import generator

_STOP_AFTER = 10.0
"""Seconds after which ``advance`` returns even in the middle of a phase."""
_TOKENS_AT_ONCE = {"cpu": 16_384, "cuda": 131_072}
"""What is written together, prompts and answers, in tokens. It changes how long that takes, and what is written only
where rounding decides."""
_SHARES = {"replay": 0.1, "train": 0.7, "consolidate": 0.05, "test": 0.15}
"""Of a visit, what a phase is counted as; for the progress bar."""
PHASES = tuple(_SHARES)


class LanguageTraining:
    """One trial."""

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.evaluate != "after_task":
            raise DeclarationError(f"evaluate: {trial.evaluate}: text-stream allows only after_task")
        if trial.randomness != "clray":
            raise DeclarationError("randomness: official: the official code draws without seeds; allowed: clray")
        if trial.precision == "bfloat16" and device.startswith("cuda") and not has_bfloat16():
            name = torch.cuda.get_device_name(device)
            raise DeclarationError(f"precision: bfloat16: {name} has none but by emulation; allowed: float32")
        self.trial, self.device = trial, device
        benchmark = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        tasks = benchmark.taken(sources.load(data["texts"]))
        self.tasks = [tasks[i] for i in trial.task_order or range(len(tasks))]
        self.form = "eager" if trial.engine == "eager" else "fused"
        method = find(trial.method)
        settings = method.Settings(**trial.hyperparameters)
        model = models.Settings(**trial.model)
        # The benchmark's own order, so that every order of the tasks has the same vocabulary.
        vocabulary = models.vocabulary(model, (text for task in tasks for text in task.texts()), data["model"])
        if settings.use_sep:
            vocabulary.add_separator()
        seed = int(generator(trial.seed, "weights").integers(2**32))
        network = models.build(model, vocabulary, seed)
        self.learner = Learner(
            network, vocabulary, self.tasks, settings, trial.seed, device, trial.precision, self.form
        )
        self.method: LanguageMethod = method(settings, self.learner)
        every = list(range(len(self.tasks)))
        self.visits = [every] if method.merged else [[task] for task in every]
        self._refuse_long_examples()
        self._at_once = _TOKENS_AT_ONCE[torch.device(device).type]
        self.visit, self.phase, self.epoch, self.batch = 0, "replay", 0, 0
        self.written: list[list[int]] = []
        """Of this visit: the pseudo-samples, their generation token first."""
        self.samples: list[tuple[int, int, list[int]]] = []
        """The pseudo-samples of all visits: before which task, of which, and their tokens."""
        self.answers: list[list[str]] = [[] for _ in self.tasks]
        """Of this visit's test: what was written for each task's questions, in the order of ``_questions``."""
        self.scores: list[dict[str, dict[str, float]]] = []
        """After each visit: every task's scores, in per cent."""
        self.predictions: dict[str, list[str]] = {}
        """Of the last test, in the order of the test examples."""
        self.losses, self.since = 0.0, 0
        self._encoded: list[Encoded] = []
        """Of this visit: what is learned; encoded when training begins."""
        self._batches: list[list[int]] = []
        self._asked: dict[int, list[Encoded]] = {}
        self._longest_answers: dict[int, int] = {}

    def _refuse_long_examples(self) -> None:
        """An example that the model cannot read is an error before hours of training, not after them."""
        longest = self.learner.longest
        for task in self.tasks:
            for test, examples in ((False, task.train), (True, task.test)):
                for example in examples:
                    # A token is a byte at least: most examples need not be encoded for it.
                    if len(example.question) + len(example.answers[0]) > longest // 4 - 8:
                        try:
                            encode(example, self.learner.vocabulary, 0, longest, self.learner.settings.use_sep, test)
                        except DataError as error:
                            raise DataError(f"{task.name}: {error}") from None

    # ----------------------------------------------------------------------------------------------------------
    # Where the trial is

    @property
    def progress(self) -> float:
        if self.visit == len(self.visits):
            return 1.0
        before = sum(_SHARES[phase] for phase in PHASES[: PHASES.index(self.phase)])
        done = before + _SHARES[self.phase] * min(self._share_of_phase(), 1.0)
        return min((self.visit + done) / len(self.visits), 1 - 1e-9)

    def _share_of_phase(self) -> float:
        if self.phase == "replay":
            return len(self.written) / max(len(self._wanted()), 1)
        if self.phase == "train":
            return (self.epoch + self.batch / max(len(self._batches), 1)) / self.learner.settings.epochs
        if self.phase == "consolidate":
            return self.batch / max(len(self._batches), 1)
        return sum(map(len, self.answers)) / max(sum(len(task.test) for task in self.tasks), 1)

    @property
    def facts(self) -> dict[str, Any]:
        model = self.learner.model
        count = sum(parameter.numel() for parameter in model.parameters())
        facts: dict[str, Any] = {"engine": self.form, "device": self.device, "parameters": count}
        facts |= {"vocabulary": len(self.learner.vocabulary)}
        return facts | {"updates": self.learner.updates, "tokens": self.learner.tokens}

    def advance(self) -> list[Measurement]:
        """See ``clray.training.Training``.

        Raises:
            Diverged: the loss of a batch, the weights at a stop or after a task's last batch, the logits of a text to
                be written, or the importance weights of EWC and MAS are not finite.
        """
        deadline = time.monotonic() + _STOP_AFTER
        while self.visit < len(self.visits):
            self.learner.task = self.visits[self.visit][-1]
            measured = getattr(self, f"_{self.phase}")(deadline)
            if measured is not None:
                return measured
        return []

    def _next_phase(self) -> None:
        """On to the next phase of the visit, or to the next visit."""
        self.epoch = self.batch = 0
        self._batches = []
        if self.phase != PHASES[-1]:
            self.phase = PHASES[PHASES.index(self.phase) + 1]
            return
        self.visit, self.phase = self.visit + 1, PHASES[0]
        self.written, self.answers = [], [[] for _ in self.tasks]
        self._encoded = []

    # ----------------------------------------------------------------------------------------------------------
    # Phase by phase: each returns what was measured when it is time to stop, None when it is over

    def _wanted(self) -> list[int]:
        return self.method.samples_wanted(self.visit) if not self.method.merged else []

    def _replay(self, deadline: float) -> list[Measurement] | None:
        wanted = self._wanted()
        at_once = max(self._at_once // self.learner.longest, 1)
        while len(self.written) < len(wanted):
            begin = len(self.written)
            numbers = list(range(begin, min(begin + at_once, len(wanted))))
            prompts = [[self._token_of(wanted[i])] for i in numbers]
            rest = [self.learner.longest - 1] * len(prompts)
            purpose = f"pseudo-samples {self.visit}"
            found = self.learner.write(prompts, numbers, purpose, self.learner.settings.top_k, rest)
            self.written += [prompt + more for prompt, more in zip(prompts, found, strict=True)]
            if time.monotonic() > deadline:
                return []
        self.samples += [(self.visit, of, ids) for of, ids in zip(wanted, self.written, strict=True)]
        self._begin_training()
        self._next_phase()
        return None

    def _token_of(self, task: int) -> int:
        return self.learner.generation_ids[self.method.generation_token(self.tasks[task].name)]

    def _begin_training(self) -> None:
        """All that a visit's training is made of, from what was written before it; the same on a continuation."""
        here, token = self.visits[self.visit], self._know(self.visit)
        self._encoded = [row for task in here for row in self.learner.encoded(self.tasks[task].train, token)]
        self._encoded += self._replayed() + self._relearned()
        self.method.begin(here[0])
        self.learner.begin(len(self._encoded), self.method.penalty())

    def _know(self, visit: int) -> int:
        """The generation token of a visit, which the model knows from then on."""
        name = self.tasks[self.visits[visit][0]].name
        return self.learner.know(self.method.generation_token(name), f"token of visit {visit}")

    def _replayed(self) -> list[Encoded]:
        """The pseudo-samples that can be learned."""
        parsed = [parse_sample(ids, self.learner.vocabulary, self.learner.longest) for ids in self.written]
        return [row for row in parsed if row is not None]

    def _relearned(self) -> list[Encoded]:
        """Real examples of earlier tasks, drawn with replacement."""
        found: list[Encoded] = []
        wanted = self.method.real_samples(self.visit) if not self.method.merged else []
        for task, count in wanted:
            examples = self.tasks[task].train
            chosen = generator(self.trial.seed, f"real samples {self.visit} {task}").integers(len(examples), size=count)
            found += self.learner.encoded([examples[i] for i in chosen], self._token_of(task))
        return found

    def _train(self, deadline: float) -> list[Measurement] | None:
        while self.epoch < self.learner.settings.epochs:
            self._draw_batches()
            while self.batch < len(self._batches):
                batch = self._batch()
                self.losses += self.learner.observe(batch, self.method.lm_lambda, self.method)
                self.since += 1
                self.batch += 1
                if time.monotonic() > deadline:
                    self.learner.refuse_divergence()
                    return []
            self.epoch, self.batch, self._batches = self.epoch + 1, 0, []
        loss, self.losses, self.since = self.losses / max(self.since, 1), 0.0, 0
        self.learner.refuse_divergence()
        self.learner.end()
        self._next_phase()
        last = self.visits[self.visit][-1]
        return [Measurement(self.learner.examples, last + 1, last, "train_loss", loss)]

    def _draw_batches(self) -> None:
        """The batches of this epoch, or of the look after the last one, if they were not drawn before."""
        if not self._batches:
            self._batches = self.learner.batches(self._encoded, f"of visit {self.visit}, {self.phase} {self.epoch}")

    def _batch(self) -> Batch:
        return as_batch([self._encoded[i] for i in self._batches[self.batch]])

    def _consolidate(self, deadline: float) -> list[Measurement] | None:
        if self.method.consolidates:
            self._draw_batches()
            while self.batch < len(self._batches):
                self.method.consolidate(self._batch())
                self.batch += 1
                if time.monotonic() > deadline:
                    return []
        self.method.end(self.visits[self.visit][-1])
        self._next_phase()
        return None

    def _test(self, deadline: float) -> list[Measurement] | None:
        for task in range(len(self.tasks)):
            questions = self._questions(task)
            while len(self.answers[task]) < len(questions):
                self._answer_next(task, questions)
                if time.monotonic() > deadline:
                    return []
        measured = self._scored()
        self._next_phase()
        return measured

    def _questions(self, task: int) -> list[Encoded]:
        """A task's test questions, shortest first; their ``id`` is their place among the test examples."""
        if task not in self._asked:
            vocabulary, longest = self.learner.vocabulary, self.learner.longest
            token = vocabulary.eos  # no question holds a generation token
            options = {"use_sep": self.learner.settings.use_sep, "test": True}
            rows = [encode(example, vocabulary, token, longest, **options) for example in self.tasks[task].test]
            rows = [row._replace(id=i) for i, row in enumerate(rows)]
            self._asked[task] = sorted(rows, key=lambda row: len(row.cq))
        return self._asked[task]

    def _answer_next(self, task: int, questions: list[Encoded]) -> None:
        begin = len(self.answers[task])
        room = max(self._answer_room(task, row) for row in questions)
        at_once = max(self._at_once // (len(questions[-1].cq) + room), 1)
        part = questions[begin : begin + at_once]
        purpose = f"answers {self.visit} {task}"
        found = self.learner.write(
            [row.cq for row in part],
            [row.id for row in part],
            purpose,
            self.learner.settings.answer_top_k,
            [self._answer_room(task, row) for row in part],
        )
        self.answers[task] += [self.learner.vocabulary.decode(ids) for ids in found]

    def _answer_room(self, task: int, row: Encoded) -> int:
        """The most tokens that an answer may have: as many as the longest right one of the task has."""
        return min(self._longest_answer(task), self.learner.longest - len(row.cq))

    def _longest_answer(self, task: int) -> int:
        if task not in self._longest_answers:
            vocabulary = self.learner.vocabulary
            joined = [[vocabulary.encode(answer) for answer in example.answers] for example in self.tasks[task].test]
            self._longest_answers[task] = max((sum(map(len, parts)) + len(parts) - 1 for parts in joined), default=0)
        return self._longest_answers[task]

    def _scored(self) -> list[Measurement]:
        last = self.visits[self.visit][-1]
        measured: list[Measurement] = []
        self.scores.append({})
        for task, data in enumerate(self.tasks):
            answers = [""] * len(data.test)
            for row, answer in zip(self._questions(task), self.answers[task], strict=True):
                answers[row.id] = answer
            self.predictions[data.name] = answers
            scores = score(data.name, answers, [as_compared(e, self.learner.vocabulary) for e in data.test])
            self.scores[-1][data.name] = scores
            found = {"accuracy": scores[official(data.name)], **scores}
            seen = self.learner.examples
            measured += [Measurement(seen, last + 1, task, name, value / 100) for name, value in found.items()]
        return measured

    # ----------------------------------------------------------------------------------------------------------
    # What is kept

    def artifacts(self) -> dict[str, bytes]:
        """The scores in the official layout, ``metrics.json`` of the last task and ``metrics.<task>.json`` of those
        before it; the pseudo-samples, and the answers in the last test."""
        from clray.language import export

        names = [f"metrics.{task.name}.json" for task in self.tasks[: len(self.scores) - 1]] + [export.METRICS]
        kept = {name: export.metrics_json([scores]) for name, scores in zip(names, self.scores, strict=True)}
        return kept | {
            export.SAMPLES: export.samples_json([self._sample(*note) for note in self.samples]),
            export.PREDICTIONS: export.predictions_json(self._predicted()),
        }

    def _sample(self, after: int, of: int, ids: list[int]) -> Sample:
        vocabulary = self.learner.vocabulary
        names = (self.tasks[after].name, self.tasks[of].name)
        text, read = vocabulary.decode(ids), parse_sample(ids, vocabulary, self.learner.longest)
        if read is None:
            count = ids.count(vocabulary.ans)
            reason = f"{count or 'no'} __ans__" if count != 1 else "no single __sep__ before __ans__"
            return Sample(*names, ids, text, text, None, reason)
        answer = [token for token in read.cqa[len(read.cq) :] if token != vocabulary.eos]
        return Sample(*names, ids, text, vocabulary.decode(read.cq[:-1]), vocabulary.decode(answer), "")

    def _predicted(self) -> list[Prediction]:
        last, vocabulary, found = self.tasks[-1].name, self.learner.vocabulary, []
        for task in self.tasks:
            for example, text in zip(task.test, self.predictions[task.name], strict=True):
                answers = list(as_compared(example, vocabulary).answers)
                found.append(Prediction(last, task.name, example.id, answers, text))
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "trial": self.trial.declaration,
            "at": [self.visit, self.phase, self.epoch, self.batch],
            "loss": [self.losses, self.since],
            "written": self.written,
            "samples": [list(sample) for sample in self.samples],
            "answers": self.answers,
            "scores": self.scores,
            "predictions": self.predictions,
            "learner": self.learner.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            if state["trial"] != self.trial.declaration:
                raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: it is another trial's")
            self.visit, self.phase, self.epoch, self.batch = state["at"]
            self.losses, self.since = state["loss"]
            self.written, self.answers = state["written"], state["answers"]
            self.samples = [(after, of, ids) for after, of, ids in state["samples"]]
            self.scores, self.predictions = state["scores"], state["predictions"]
            for visit in range(self.visit + (self.phase != "replay")):
                self._know(visit)
            self.method.load_state_dict(state["method"])
            if self.phase in ("train", "consolidate"):
                self._begin_training()
            if self._encoded:
                self._draw_batches()
            self.learner.load_state_dict(state["learner"])
        except torch.OutOfMemoryError:
            raise  # not the checkpoint's fault: a larger share of the GPU may do
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
