"""The loop of the language track: a model learns task by task. One trial is a ``Training``.

Each visit of a task has four phases, any of which may be empty: ``replay`` (the model writes pseudo-samples of the
tasks before it), ``train``, ``consolidate`` (the method sees the task's examples once more, for its penalty) and
``test``. A phase advances by batches, so that a trial can stop and go on inside it.
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
from clray.language.evaluation import Evaluation
from clray.language.export import Prediction, PseudoSample
from clray.language.learner import Learner, as_batch
from clray.language.losses import Batch
from clray.language.methods import METHODS
from clray.language.methods.base import LanguageMethod
from clray.language.scoring import as_compared
from clray.metrics import Measurement
from clray.training import NO_OFFICIAL_DRAWS, generator, restoring
from clray.trial import Trial

_STOP_AFTER = 10.0
"""Seconds after which ``advance`` returns, also in the middle of a phase."""
_TOKENS_AT_ONCE = {"cpu": 16_384, "cuda": 131_072}
"""The number of tokens, prompts and answers, that are written together. It changes the time that this takes, and the
text only where rounding decides."""
_SHARES = {"replay": 0.1, "train": 0.7, "consolidate": 0.05, "test": 0.15}
"""The share of a visit that each phase counts as, for the progress bar."""
PHASES = tuple(_SHARES)


class LanguageTraining:
    """One trial."""

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.evaluate != "after_task":
            raise DeclarationError(f"evaluate: {trial.evaluate}: text-stream allows only after_task")
        if trial.randomness != "clray":
            raise DeclarationError(f"randomness: {NO_OFFICIAL_DRAWS}")
        if trial.precision == "bfloat16" and device.startswith("cuda") and not has_bfloat16():
            name = torch.cuda.get_device_name(device)
            raise DeclarationError(f"precision: bfloat16: {name} has none but by emulation; allowed: float32")
        self.trial, self.device = trial, device
        benchmark = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        tasks = benchmark.taken(sources.load(data["texts"]))
        self.tasks = [tasks[i] for i in trial.task_order or range(len(tasks))]
        self.form = "eager" if trial.engine == "eager" else "fused"
        method = METHODS[trial.method]
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
        places = list(range(len(self.tasks)))
        self.visits = [places] if method.merged else [[task] for task in places]
        self._refuse_long_examples()
        self._at_once = _TOKENS_AT_ONCE[torch.device(device).type]
        self.evaluation = Evaluation(self.learner, self.tasks, self._at_once)
        self.visit, self.phase, self.epoch, self.batch = 0, "replay", 0, 0
        self.written: list[list[int]] = []
        """The pseudo-samples of this visit as tokens, the generation token first."""
        self.samples: list[tuple[int, int, list[int]]] = []
        """The pseudo-samples of all visits: the task learned next, the task that they imitate, and their tokens."""
        self.losses, self.since = 0.0, 0
        self._encoded: list[Encoded] = []
        """The examples that this visit learns from; encoded when its training begins."""
        self._batches: list[list[int]] = []

    def _refuse_long_examples(self) -> None:
        """Raise an error for an example that is too long for the model, before hours of training instead of after."""
        longest = self.learner.longest
        for task in self.tasks:
            for test, examples in ((False, task.train), (True, task.test)):
                for example in examples:
                    # A token has at least one byte, so most examples need not be encoded for this check.
                    if len(example.question) + len(example.answers[0]) > longest // 4 - 8:
                        try:
                            encode(example, self.learner.vocabulary, 0, longest, self.learner.settings.use_sep, test)
                        except DataError as error:
                            raise DataError(f"{task.name}: {error}") from None

    # ----------------------------------------------------------------------------------------------------------
    # Progress

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
        return self.evaluation.progress

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
        """Go on to the next phase of the visit, or to the next visit."""
        self.epoch = self.batch = 0
        self._batches = []
        if self.phase != PHASES[-1]:
            self.phase = PHASES[PHASES.index(self.phase) + 1]
            return
        self.visit, self.phase = self.visit + 1, PHASES[0]
        self.written, self._encoded = [], []
        self.evaluation.begin()

    # ----------------------------------------------------------------------------------------------------------
    # The phases: each returns its measurements when it is time to stop, and None when it is over

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
        """Encode the examples of a visit's training and begin it; a continued trial gets the same examples."""
        here, token = self.visits[self.visit], self._know(self.visit)
        self._encoded = [row for task in here for row in self.learner.encoded(self.tasks[task].train, token)]
        self._encoded += self._replayed() + self._relearned()
        self.method.begin(here[0])
        self.learner.begin(len(self._encoded), self.method.penalty())

    def _know(self, visit: int) -> int:
        """Add the generation token of a visit to the model's vocabulary, and return its id."""
        name = self.tasks[self.visits[visit][0]].name
        return self.learner.know(self.method.generation_token(name), f"token of visit {visit}")

    def _replayed(self) -> list[Encoded]:
        """The pseudo-samples that can be parsed, and so learned from."""
        parsed = [parse_sample(ids, self.learner.vocabulary, self.learner.longest) for ids in self.written]
        return [row for row in parsed if row is not None]

    def _relearned(self) -> list[Encoded]:
        """Real examples of earlier tasks that are learned again, drawn with replacement."""
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
                self.losses += self.learner.observe(batch, self.method.lm_lambda, self.method.project)
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
        """Draw the batches of this epoch, or of the consolidation, where they have not been drawn yet."""
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
        while (task := self.evaluation.unfinished) is not None:
            self.evaluation.answer_next(task, self.visit)
            if time.monotonic() > deadline:
                return []
        measured = self.evaluation.measure(self.visits[self.visit][-1] + 1)
        self._next_phase()
        return measured

    # ----------------------------------------------------------------------------------------------------------
    # Artifacts and state

    def artifacts(self) -> dict[str, bytes]:
        """The scores in the official layout, the pseudo-samples, and the answers in the last test.

        ``metrics.json`` holds the scores after the last task, ``metrics.<task>.json`` those after an earlier one.
        """
        from clray.language import export

        earlier = self.tasks[: len(self.evaluation.scores) - 1]
        names = [*(f"metrics.{task.name}.json" for task in earlier), export.METRICS]
        kept = {name: export.metrics_json([scores]) for name, scores in zip(names, self.evaluation.scores, strict=True)}
        return kept | {
            export.SAMPLES: export.samples_json([self._sample(*note) for note in self.samples]),
            export.PREDICTIONS: export.predictions_json(self._predicted()),
        }

    def _sample(self, after: int, of: int, ids: list[int]) -> PseudoSample:
        vocabulary = self.learner.vocabulary
        names = (self.tasks[after].name, self.tasks[of].name)
        text, read = vocabulary.decode(ids), parse_sample(ids, vocabulary, self.learner.longest)
        if read is None:
            count = ids.count(vocabulary.ans)
            reason = f"{count or 'no'} __ans__" if count != 1 else "no single __sep__ before __ans__"
            return PseudoSample(*names, ids, text, text, None, reason)
        answer = [token for token in read.cqa[len(read.cq) :] if token != vocabulary.eos]
        return PseudoSample(*names, ids, text, vocabulary.decode(read.cq[:-1]), vocabulary.decode(answer), "")

    def _predicted(self) -> list[Prediction]:
        last, vocabulary, found = self.tasks[-1].name, self.learner.vocabulary, []
        for task in self.tasks:
            for example, text in zip(task.test, self.evaluation.predictions[task.name], strict=True):
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
            "answers": self.evaluation.answers,
            "scores": self.evaluation.scores,
            "predictions": self.evaluation.predictions,
            "learner": self.learner.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with restoring(self.trial.method):
            if state["trial"] != self.trial.declaration:
                raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: it is another trial's")
            self.visit, self.phase, self.epoch, self.batch = state["at"]
            self.losses, self.since = state["loss"]
            self.written, self.evaluation.answers = state["written"], state["answers"]
            self.samples = [(after, of, ids) for after, of, ids in state["samples"]]
            self.evaluation.scores, self.evaluation.predictions = state["scores"], state["predictions"]
            for visit in range(self.visit + (self.phase != "replay")):
                self._know(visit)
            self.method.load_state_dict(state["method"])
            if self.phase in ("train", "consolidate"):
                self._begin_training()
            if self._encoded:
                self._draw_batches()
            self.learner.load_state_dict(state["learner"])


def has_bfloat16() -> bool:
    """True where the GPU has bfloat16 arithmetic, so that it need not be emulated."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
