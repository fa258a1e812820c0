"""Honest tuning: hyper-parameters are chosen in one phase, frozen in a file, and evaluated in another phase.

The protocol is that of Cha and Cho (2025, "Hyperparameters in continual learning: a reality check"): the same scenario
on classes that tuning has not seen, with other class orders and seeds, and no choice after the evaluation. The file of
frozen settings holds the digests of the sweep, of its code and of its data, so that settings which were chosen for
another experiment are refused. docs/tuning.md is for users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clray.equal_code import representative
from clray.errors import DeclarationError, StateError
from clray.metrics import METRICS
from clray.output import redacted
from clray.phases import tuning_phase
from clray.planning import Plan
from clray.provenance import code_digest
from clray.reproduction import tuning_phases
from clray.store import Store
from clray.sweep import Sweep
from clray.trial import short_hash

FORMAT = 1


@dataclass(frozen=True)
class Phases:
    """A sweep as its two phases: the same variants and grids on different classes, with different seeds."""

    tuning: Sweep
    evaluation: Sweep

    @property
    def digest(self) -> str:
        """A hash of all that the two phases declare: every trial with its variant, and how points are chosen."""
        rule = self.evaluation.tuning
        assert rule is not None
        trials = [[[c.variant, c.trial.declaration] for c in phase.cells] for phase in (self.tuning, self.evaluation)]
        return short_hash([rule.metric, trials])

    @property
    def code(self) -> str:
        """A hash of the code that runs its trials; the same for code that is known to give the same numbers."""
        cells = [cell for phase in (self.tuning, self.evaluation) for cell in phase.cells]
        return short_hash(sorted({representative(code_digest(cell.trial)) for cell in cells}))


def phases(sweep: Sweep) -> Phases:
    """The two phases of a sweep.

    Raises:
        DeclarationError: as of ``tuning_phase``.
    """
    return Phases(tuning_phase(sweep), sweep)


def refuse_shared_images(found: Phases, plans: Sequence[Plan]) -> None:
    """Check that no image of the tuning phase is one of the evaluation.

    Args:
        plans: those of both phases, or one of both; they say which data the trials read.

    Raises:
        DeclarationError: some are; the message names their classes.
    """
    from clray.vision.disjoint import labels_of, shared_images

    one, other = (labels_of(cell.trial for cell in phase.cells) for phase in (found.tuning, found.evaluation))
    declared = {cell.trial.declaration for phase in (found.tuning, found.evaluation) for cell in phase.cells}
    planned = [trial for plan in plans for trial in plan.trials if trial.trial.declaration in declared]
    data = {trial.trial.benchmark["dataset"]: trial.data for trial in planned}
    same = shared_images(one, other, data)
    assert found.evaluation.tuning is not None
    if len(same) > (most := found.evaluation.tuning.common_images):
        pairs = dict.fromkeys(f"class {a} of {first} and class {b} of {second}" for first, a, second, b in same)
        named = list(pairs)[:3]
        raise DeclarationError(
            f"{found.evaluation.place('tuning')}: images in both phases: {len(same)}, of {'; '.join(named)}"
            + (f" and {len(pairs) - 3} more pairs of classes" if len(pairs) > 3 else "")
            + f"; allowed: at most {most}, or as many as tuning.common_images says"
        )


def refuse_images_of_both_phases(sweeps: Mapping[str, Sweep], planned: Plan) -> None:
    """Check that in no sweep of a reproduction the tuning phase and the evaluation of the tuned variants have an image
    in common.

    Args:
        sweeps: those of the reproduction, as ``Reproduction.sweeps`` gives them.
        planned: the plan of all of them.

    Raises:
        DeclarationError: some are; the message names their classes.
    """
    for name, sweep in sweeps.items():
        for phase in tuning_phases(sweeps, name):
            tuned = sweep.with_variants(dict(phase.variant_settings()))
            refuse_shared_images(Phases(phase, tuned), [planned])


# ----------------------------------------------------------------------------------------------------------------------
# Frozen settings


@dataclass(frozen=True)
class Frozen:
    """The settings that tuning chose, and what they were chosen for.

    Attributes:
        chosen: the name of the chosen point of each variant, ``variant@axis=value``.
        digest, code: of ``Phases``.
        data: the fingerprints of the data of both phases.
        means: the mean of the metric over the tuning runs of every point that took part, in per cent.
    """

    sweep: str
    metric: str
    digest: str
    code: str
    data: list[str]
    chosen: dict[str, str]
    means: dict[str, float]

    @classmethod
    def of(
        cls, found: Phases, plans: tuple[Plan, Plan], chosen: Mapping[str, str], means: Mapping[str, float]
    ) -> Frozen:
        assert found.evaluation.tuning is not None
        metric = found.evaluation.tuning.metric
        data = _fingerprints(plans)
        return cls(found.evaluation.name, metric, found.digest, found.code, data, dict(chosen), dict(means))

    def require(self, found: Phases, plans: tuple[Plan, Plan], place: str) -> None:
        """Check that the settings were chosen for this sweep, by this code and on this data.

        Args:
            place: the file that holds them, for the message.

        Raises:
            DeclarationError: they were not.
        """
        here = {"sweep": found.digest, "code": found.code, "data": ", ".join(_fingerprints(plans))}
        frozen = {"sweep": self.digest, "code": self.code, "data": ", ".join(self.data)}
        for what, value in here.items():
            if frozen[what] != value:
                raise DeclarationError(
                    f"{place}: its settings were frozen for another {what} (digest {frozen[what]}, here {value}), so "
                    "nothing is evaluated with them; allowed: the sweep, code and data that they were chosen for, "
                    "another store (--results) for another experiment, or another choice once this file is removed"
                )
        points = {name for name, _ in found.evaluation.variant_settings()}
        methods = {name.split("@")[0] for name in points}
        if set(self.chosen) != methods or not all(p in points and p.split("@")[0] == m for m, p in self.chosen.items()):
            raise DeclarationError(
                f"{place}: it does not hold a point of each variant's grid; remove the file to choose again"
            )
        self._require_the_best(found, place)

    def _require_the_best(self, found: Phases, place: str) -> None:
        """Check that the choice is what follows from the results in the file: a person may have edited it.

        Raises:
            DeclarationError: it is not.
        """
        rule = found.evaluation.tuning
        assert rule is not None
        if self.metric != rule.metric:
            raise DeclarationError(
                f"{place}: its metric is {self.metric}, and the sweep chooses by {rule.metric}: the file was edited "
                "after the choice; allowed: the file as clray wrote it, or another choice once this file is removed"
            )
        sign = METRICS[rule.metric].sign
        for method, point in self.chosen.items():
            means = {name: mean for name, mean in self.means.items() if name.split("@")[0] == method}
            best = max(means, key=lambda name: sign * means[name], default=None)
            if best is None or point not in means or abs(means[point] - means[best]) > 1e-9:
                tuned = "no tuning result of this method" if best is None else f"{best} is better on the tuning data"
                raise DeclarationError(
                    f"{place}: it holds the choice {point}, and {tuned}: the file was edited after the choice; "
                    "allowed: the file as clray wrote it, or another choice once this file is removed"
                )


def _fingerprints(plans: tuple[Plan, Plan]) -> list[str]:
    return sorted({t.data["fingerprint"] for plan in plans for t in plan.trials})


def frozen_file(name: str, suffix: str) -> str:
    """The place of a sweep's frozen settings within a store.

    Args:
        suffix: that of the selection, so that each form of a sweep has its own.
    """
    return f"tuning/{name.replace('/', '-')}{suffix}.json"


def read_frozen(store: Store, file: str) -> Frozen | None:
    """The frozen settings; None where nothing is frozen yet.

    Raises:
        StateError: the file holds something else.
    """
    content = store.read_file(file)
    if content is None:
        return None
    try:
        facts: dict[str, Any] = json.loads(content)
        if facts.pop("format") != FORMAT:
            raise ValueError("format")
        frozen = Frozen(**facts)
        texts = [frozen.sweep, frozen.metric, frozen.digest, frozen.code, *frozen.data, *frozen.chosen.values()]
        numbers = frozen.means.values()
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(mean, float) for mean in numbers):
            raise ValueError("types")
        return frozen
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StateError(
            f"{redacted(store.path(file))}: it holds no frozen settings; remove the file to choose again"
        ) from None


def write_frozen(store: Store, file: str, frozen: Frozen) -> None:
    """Write the frozen settings.

    Raises:
        StoreError: they cannot be written.
    """
    store.write_file(file, json.dumps({"format": FORMAT, **asdict(frozen)}, indent=1, sort_keys=True).encode())
