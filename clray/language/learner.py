"""A language model in training: it learns one task after the other, and writes answers.

The protocol is that of LAMOL's official code (Sun, Ho and Lee 2020; ``train.py``, ``utils.py``). Every task begins with
a new optimizer and a new schedule that counts examples. The model learns to write an answer after ``__ans__``, a class
with the weight ``answer_weight`` (the QA loss), and for some methods to write whole examples (the LM loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from clray.divergence import NotFinite, all_finite
from clray.errors import Diverged
from clray.language import losses
from clray.language.batching import as_coded, bucketed
from clray.language.encoding import Encoded, encode
from clray.language.examples import Example, TaskData
from clray.language.generation import generate
from clray.language.losses import Batch
from clray.language.models import grow, positions
from clray.language.optimizers import AdamW, Schedule, parameter_groups
from clray.language.settings import TrainingSettings
from clray.language.tokens import Vocabulary
from clray.training import generator


def as_batch(rows: Sequence[Encoded]) -> Batch:
    """Make a batch of encoded examples."""
    return Batch(*([getattr(row, name) for row in rows] for name in Batch._fields))


class Learner:
    """A model, its vocabulary and its optimizer.

    Args:
        model: a causal language model of ``transformers``.
        tasks: the tasks in the order of learning.
        seed: the trial's seed; every random number depends only on it and on the number's purpose.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        vocabulary: Vocabulary,
        tasks: Sequence[TaskData],
        settings: TrainingSettings,
        seed: int,
        device: str = "cpu",
        precision: str = "float32",
        form: str = "fused",
    ) -> None:
        self.vocabulary, self.tasks, self.settings, self.seed = vocabulary, tasks, settings, seed
        self.device, self.precision, self.plain = device, precision, form == "eager"
        self.model = model.to(device)
        self.longest = positions(model)
        """The most tokens of a sequence."""
        self.generation_ids: dict[str, int] = {}
        self.optimizer: AdamW | None = None
        self.schedule: Schedule | None = None
        self.task = 0
        """The index of the task that is being learned, for the error of a trial that diverges."""
        self.updates = self.examples = self.tokens = 0
        """The numbers of updates, of examples learned from, and of tokens in the losses."""

    def know(self, token: str, purpose: str) -> int:
        """Add a generation token to vocabulary and embeddings, where it is new, and return its id."""
        if token not in self.generation_ids:
            self.generation_ids[token] = self.vocabulary.add(token)
        seed = int(generator(self.seed, f"weights of {purpose}").integers(2**32))
        grow(self.model, len(self.vocabulary), seed)
        return self.generation_ids[token]

    def encoded(self, examples: Sequence[Example], token: int) -> list[Encoded]:
        """Encode examples for training."""
        found = []
        for example in examples:
            found.append(encode(example, self.vocabulary, token, self.longest, use_sep=self.settings.use_sep))
        return found

    # ----------------------------------------------------------------------------------------------------------
    # Training

    def begin(self, examples: int, penalty: Any) -> None:
        """Begin a task with a new optimizer and a new schedule.

        Args:
            examples: the number of examples of an epoch.

        Raises:
            Diverged: the importance of parameters, as EWC and MAS measured it, has overflowed.
        """
        settings = self.settings
        if penalty is not None:
            self.refuse_divergence("importance weights", (omega for omega, _ in penalty.terms.values()))
        for parameter in self.model.parameters():
            # Gradients start as zeros, not as None, so that a continued run rounds as an uninterrupted one.
            parameter.grad = torch.zeros_like(parameter)
        groups = parameter_groups(self.model, settings.weight_decay)
        self.optimizer = AdamW(groups, lr=settings.lr, eps=settings.eps, penalty=penalty)
        self.schedule = Schedule(self.optimizer, settings.lr, examples, settings.epochs, settings.warmup)
        self.weights = losses.weights(len(self.vocabulary), self.vocabulary.heavy, settings.answer_weight, self.device)

    def end(self) -> None:
        """End a task: its optimizer and its schedule are dropped."""
        self.optimizer = self.schedule = None

    def batches(self, encoded: Sequence[Encoded], purpose: str) -> list[list[int]]:
        """The batches of an epoch, as indices of the examples."""
        lengths, settings = [len(row.cqa) for row in encoded], self.settings
        rng = generator(self.seed, f"order {purpose}")
        largest = max(len(encoded) // settings.min_steps, settings.min_batch)
        if settings.batching == "bucketed":
            return bucketed(lengths, settings.token_budget, rng, largest)
        return as_coded(lengths, rng.permutation(len(encoded)).tolist(), settings.token_budget, largest, train=True)

    def observe(self, batch: Batch, lm_lambda: float | None, project: Callable[[], None]) -> float:
        """Learn from a batch with one update.

        Args:
            lm_lambda: the weight of the LM loss; None for none.
            project: is called with the clipped gradients in place, and may change them.

        Returns:
            The loss before the update.

        Raises:
            Diverged: the loss is not finite.
        """
        assert self.optimizer is not None
        assert self.schedule is not None
        loss = self.backward(batch, lm_lambda, f"dropout {self.updates}")
        self.clip()
        project()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # see losses.fused
        self.schedule.step(batch.count)
        self.updates += 1
        self.examples += batch.count
        self.tokens += sum(map(len, batch.cqa)) + (0 if lm_lambda is None else sum(map(len, batch.gen_X)))
        return loss

    def backward(self, batch: Batch, lm_lambda: float | None, purpose: str) -> float:
        """Add the gradients of the batch's loss to those of the parameters, and return the loss.

        Raises:
            Diverged: the loss is not finite.
        """
        form = losses.eager if self.plain else losses.fused
        self.model.train()
        with self.drawing(purpose), self.computing():
            qa, lm = form(self.model, batch, self.weights, lm_lambda)
            loss = qa + lm
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self.diverged("loss")
        loss.backward()
        return value

    def diverged(self, what: str) -> Diverged:
        """The error of a trial whose numbers are no longer finite.

        Args:
            what: the quantity that is not finite.
        """
        return Diverged(self.examples, self.task, what)

    def refuse_divergence(self, what: str = "weights", tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Check that the model's weights, or other numbers, are finite.

        Raises:
            Diverged: they are not.
        """
        if not all_finite(self.model.parameters() if tensors is None else tensors):
            raise self.diverged(what)

    def clip(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)

    @contextmanager
    def drawing(self, purpose: str) -> Iterator[None]:
        """A context in which torch's generator, used by dropout, is seeded by the trial's seed and this purpose."""
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(generator(self.seed, purpose).integers(2**63)))
            yield

    def computing(self) -> Any:
        """A context that computes in the trial's precision."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")

    # ----------------------------------------------------------------------------------------------------------
    # Generation

    def write(
        self, prompts: Sequence[Sequence[int]], numbers: Sequence[int], purpose: str, top_k: int, longest: Sequence[int]
    ) -> list[list[int]]:
        """The tokens that the model writes after each prompt, without the end token.

        Args:
            numbers: a number for each prompt; with ``purpose`` it determines the prompt's random numbers, which so do
                not depend on the other prompts.
            longest: the most tokens for each prompt.

        Raises:
            Diverged: the model's logits are not finite.
        """

        def uniforms(i: int) -> np.ndarray[Any, Any]:
            return generator(self.seed, f"{purpose} {numbers[i]}").random(longest[i])

        self.model.eval()
        try:
            with torch.no_grad(), self.computing():
                return generate(
                    self.model,
                    [list(prompt) for prompt in prompts],
                    uniforms,
                    top_k,
                    self.settings.temperature,
                    self.vocabulary.eos,
                    list(longest),
                )
        except NotFinite:
            raise self.diverged("logits") from None

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "counts": [self.updates, self.examples, self.tokens],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state. The vocabulary must have grown, and the task have begun, as when it was saved."""
        self.model.load_state_dict(state["model"])
        if state["optimizer"] is None:
            self.end()
        else:
            assert self.optimizer is not None
            assert self.schedule is not None
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        self.updates, self.examples, self.tokens = state["counts"]
