"""Class means, SCR, PCR, HPCR and their losses against the recorded figures of the official codes; UER, EnMix and the
frozen class means, for which there are none, against slow forms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from official_steps import FOLDER, case, learner_of, play
from torch.nn.functional import cross_entropy, normalize

from clray.errors import DeclarationError
from clray.training import run
from clray.trial import Trial
from clray.vision.draws import ClrayDraws
from clray.vision.losses import proxy_contrastive, similarity_distillation, supervised_contrastive
from clray.vision.methods import METHODS
from clray.vision.networks.heads import Cosine
from clray.vision.stream import Batch
from clray.vision.training import resolve, train

LOSSES = json.loads((FOLDER / "losses.json").read_text(encoding="utf-8"))


class Watched:
    """Makes a method flip every image, as the recorded cases do, and keeps the loss of each step."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.losses = keys, list[float]()

    def prepare(self, method: Any) -> None:
        method.learner.augmented = lambda x, name, key: x.flip(3)
        loss = method.loss

        def kept(batch: Batch) -> torch.Tensor:
            value = loss(batch)
            self.losses.append(float(value.detach()))
            return value

        method.loss = kept

    def compare(self, method: Any, step: dict[str, Any], number: int) -> None:
        """Compare the loss of the step with the one recorded under the first of the keys that the step has."""
        recorded = next(step[key] for key in self.keys if key in step)
        taken, self.losses = self.losses, []
        assert taken == pytest.approx(recorded, rel=1e-4, abs=1e-6), number


def started(name: str, settings: dict[str, Any], steps: int, network: str = "conv", seed: int = 0) -> Any:
    """A method that has learned the first batches of the recorded stream with clray's own draws."""
    learner = learner_of(network, "y", ClrayDraws(seed))
    kind: Any = METHODS[name]
    method = kind(kind.Settings(**settings), learner)
    for step in range(steps):
        if step % 4 == 0:
            method.begin(step // 4)
        method.observe(batch_of(method, step))
        if step % 4 == 3:
            method.end(step // 4)
    return method


def batch_of(method: Any, step: int) -> Batch:
    return Batch(method.stream, np.arange(10 * step, 10 * step + 10), step // 4)


# ----------------------------------------------------------------------------------------------------------------------


class TestTricksOfEr:
    BOTH = {"classifier": "ncm", "review": True}

    def test_the_surveys_code(self):
        play("er_review_ncm", "ocl_er", self.BOTH)

    @pytest.mark.parametrize("change", [{"review": False}, {"classifier": "softmax"}])
    def test_each_makes_a_difference(self, change):
        with pytest.raises(AssertionError, match="after_review0" if "review" in change else None):
            play("er_review_ncm", "ocl_er", self.BOTH | change)

    def test_a_review_needs_boundaries(self):
        with pytest.raises(DeclarationError, match=r"^ocl_er: .*hides"):
            play("er_review_ncm", "ocl_er", self.BOTH, hidden=True)


class TestClassMeans:
    ER = {"lr": 0.05, "memories": 25, "classifier": "ncm"}

    @pytest.mark.parametrize("network", ["conv", "convbn"])
    def test_they_are_as_one_finds_them_one_by_one(self, network):
        method = started("ocl_er", self.ER, 9, network)
        x, labels = method.stream.examples(method.memory.numbers)
        module = method.learner.module.eval()
        with torch.no_grad():
            tests = method.stream.tests(1)[0]
            means = {}
            for c in labels.unique().tolist():
                own = [module.features(image.unsqueeze(0))[0] for image, y in zip(x, labels, strict=True) if y == c]
                mean = torch.stack([feature / feature.norm() for feature in own]).mean(0)
                means[c] = mean / mean.norm()
            expected = []
            for image in tests:
                feature = module.features(image.unsqueeze(0))[0]
                distances = {c: float((feature / feature.norm() - mean).square().sum()) for c, mean in means.items()}
                expected.append(min(distances, key=lambda c: distances[c]))
            method.learner.module.train()  # the answers must not depend on the mode that training left
            scores = method.scores(tests)
        assert scores.argmax(1).tolist() == expected
        assert len(set(expected)) > 1
        assert (scores.isinf().all(0).nonzero().flatten().tolist()) == sorted(set(range(10)) - set(means))

    @pytest.mark.parametrize(("name", "steps"), [("ocl_er", 5), ("scr", 5), ("scr", 0)])
    def test_they_are_found_once_an_evaluation(self, name, steps):
        settings = self.ER if name == "ocl_er" else {"lr": 0.05, "memories": 25}
        method = started(name, settings, steps)
        calls, find = [], method.class_means._find
        method.class_means._find = lambda: calls.append(1) or find()

        def evaluated() -> list[dict[str, int]]:
            return [method.counts(group) for group in range(5)]

        first = evaluated()
        assert evaluated() == first
        assert len(calls) == 1
        changes = [
            lambda: method.observe(batch_of(method, 5)),
            lambda: method.end(1),
            lambda: method.load_state_dict(method.state_dict()),
        ]
        for count, change in enumerate(changes, start=2):
            change()
            evaluated()
            assert len(calls) == count

    def test_they_are_of_the_network_as_it_is(self):
        """After more steps the answers are those of a method that was never asked before."""
        asked, fresh = (started("scr", {"lr": 0.05, "memories": 25}, 5) for _ in range(2))
        asked.counts(0)
        for method in (asked, fresh):
            method.observe(batch_of(method, 5))
        x = asked.stream.tests(0)[0]
        assert torch.equal(asked.scores(x), fresh.scores(x))

    def test_before_anything_is_learned(self):
        assert started("ocl_er", self.ER, 0).counts(0)["accuracy"] >= 0


class TestScr:
    def test_the_authors_code(self):
        seen = Watched("loss")
        settings = {"replay_batch": 10, "projection": 16}
        play("scr", "scr", settings, seen.prepare, seen.compare, first_step=2)

    def test_the_two_views_pass_the_network_one_after_the_other(self):
        """As in the official code; the recorded network has no batch normalisation, which would show it."""
        settings = {"lr": 0.05, "memories": 25, "augmentation": "flip", "temperature": 0.5}
        method = started("scr", settings, 3, "convbn")
        slots, batch, module = np.array([3, 11, 24, 0]), batch_of(method, 3), method.learner.module.train()
        method.replayed = lambda: slots
        old_x, old_y = method.examples(slots)
        x, y = torch.cat([old_x, batch.x]), torch.cat([old_y, batch.y])
        second = method.learner.augmented(x, "flip", f"{method.steps} second view")
        assert not torch.equal(x, second)
        with torch.no_grad():
            expected = supervised_contrastive(torch.stack([module(x), module(second)], 1), y, 0.5)
            together = supervised_contrastive(module(torch.cat([x, second])).view(2, 14, -1).transpose(0, 1), y, 0.5)
            assert float(method.loss(batch)) == pytest.approx(float(expected), rel=1e-6)
        assert abs(float(together - expected)) > 1e-4

    @pytest.mark.parametrize("each", LOSSES["raptor"]["supcon"])
    def test_the_loss(self, each):
        features = torch.tensor(LOSSES["raptor"]["supcon_features"], requires_grad=True)
        anchors = {"all": "all_views", "one": "first_view"}[each["contrast_mode"]]
        loss = supervised_contrastive(features, torch.tensor(each["labels"]), each["temperature"], anchors)
        assert float(loss.detach()) == pytest.approx(each["loss"], rel=1e-5)
        if each["grad"] is not None:
            loss.backward()
            assert features.grad.numpy() == pytest.approx(np.array(each["grad"]), abs=1e-5)


class TestPcr:
    @pytest.mark.parametrize("name", ["pcr", "pcr_bn"])
    def test_the_authors_code(self, name):
        seen = Watched("total_loss")
        play(name, "pcr", {}, seen.prepare, seen.compare)

    def test_with_other_augmentations_it_is_another(self):
        with pytest.raises(AssertionError, match="step2"):
            play("pcr", "pcr", {"augmentation": "none"})

    @pytest.mark.parametrize("each", LOSSES["pcr"]["cases"])
    def test_the_loss(self, each):
        features = torch.tensor(LOSSES["pcr"]["h"], requires_grad=True)
        weights, labels = torch.tensor(LOSSES["pcr"]["W"]), torch.tensor(each["labels"])
        head = Cosine(weights.shape[1], len(weights), 1 / each["temperature"])
        with torch.no_grad():
            head.L.weight.copy_(weights)
        loss = proxy_contrastive(head(features), labels)
        assert float(loss.detach()) == pytest.approx(each["loss"], rel=1e-5)
        loss.backward()
        for mine, theirs in ((features.grad, each["grad_h"]), (head.L.weight.grad, each["grad_W"])):
            assert mine is not None
            assert mine.numpy() == pytest.approx(np.array(theirs), abs=1e-5)
        proxies = torch.stack([features / features.norm(dim=1, keepdim=True), normalize(weights)[labels]], 1).detach()
        for key, anchors in (("loss_all", "all_views"), ("loss_one", "first_view")):
            loss = supervised_contrastive(proxies, labels, each["temperature"], anchors)
            assert float(loss) == pytest.approx(each[key], rel=1e-5), "the same images and proxies in SCR's loss"

    @pytest.mark.parametrize("labels", [[0, 0, 3, 3, 3, 1], [2] * 6, [0, 1, 2, 3, 4, 5]])
    def test_the_loss_is_the_papers_formula(self, labels):
        """For each image and each one of its class, the softmax over the proxies of all images of the batch."""
        logits = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y, total = torch.tensor(labels), torch.zeros((), dtype=torch.float64)
        for i in range(6):
            positives = [p for p in range(6) if labels[p] == labels[i]]
            all_proxies = sum(logits[i, labels[j]].exp() for j in range(6))
            total = total - sum((logits[i, labels[p]].exp() / all_proxies).log() for p in positives) / len(positives)
        slow, fast = total / 6, proxy_contrastive(logits, y)
        assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (slow, fast)]
        assert torch.allclose(*gradients, atol=1e-12)

    def test_the_first_batch_is_only_remembered(self):
        method = started("pcr", {"lr": 0.1, "memories": 25}, 0)
        before = {name: value.clone() for name, value in method.learner.module.named_parameters()}
        method.observe(batch_of(method, 0))
        assert all(torch.equal(before[name], value) for name, value in method.learner.module.named_parameters())
        assert len(method.memory) == 10

    def test_classes_that_have_not_arrived_are_no_answers(self):
        method = started("pcr", {"lr": 0.1, "memories": 25}, 5)
        arrived = set(method.stream.labels[:50].tolist())
        with torch.no_grad():
            scores = method.scores(method.stream.tests(4)[0])
        assert {c for c in range(10) if (scores[:, c] > -1e9).all()} == arrived


class TestHpcr:
    @pytest.mark.parametrize("name", ["hpcr", "hpcr_m25"])
    def test_the_authors_code(self, name):
        """Steps, the three terms of the loss, and the logits and features that the memory has at the end."""
        seen, terms = Watched("total_loss"), []

        def prepare(method: Any) -> None:
            seen.prepare(method)
            distilled = method._distilled

            def kept(*given: Any) -> torch.Tensor:
                method.settings = method.settings.model_copy(update={"beta": 0.0})
                proxies = float(distilled(*given).detach())
                method.settings = method.settings.model_copy(update={"beta": 0.5})
                both = distilled(*given)
                terms.append([proxies, float(both.detach()) - proxies])
                return both

            method._distilled = kept

        def compare(method: Any, step: dict[str, Any], number: int) -> None:
            seen.compare(method, step, number)
            taken = [terms.pop()] if "pcd" in step else []
            assert taken == [pytest.approx([step["pcd"], step["scd_weighted"]], rel=1e-4) for _ in taken]
            assert not terms
            method.batches -= 1
            assert method.factor() == pytest.approx(step["tau_s"], rel=1e-12)
            method.batches += 1

        method = play(name, "hpcr", {}, prepare, compare)
        arrays = case(name)[1]
        for field in ("logits", "features"):
            kept = method.memory.fields[field].numpy()
            assert kept == pytest.approx(arrays[f"end.buffer_{field}"], abs=1e-4), field

    def test_the_features_beside_the_wrong_examples_make_a_difference(self):
        seen = Watched("total_loss")
        with pytest.raises(AssertionError):
            play("hpcr_m25", "hpcr", {"features": "corrected"}, seen.prepare, seen.compare)
        play("hpcr", "hpcr", {"features": "corrected"}, seen.prepare)

    @pytest.mark.parametrize("features", ["as_coded", "corrected"])
    def test_whose_features_are_stored(self, features):
        learner = learner_of("conv", "y", ClrayDraws(0))
        kind: Any = METHODS["hpcr"]
        method = kind(kind.Settings(lr=0.1, memories=25, features=features), learner)
        own: dict[int, torch.Tensor] = {}
        for step in range(6):
            batch = batch_of(method, step)
            method.observe(batch)
            own |= zip(batch.numbers.tolist(), method._arrived[1], strict=True)
        stored = list(zip(method.memory.numbers.tolist(), method.memory.fields["features"], strict=True))
        wrong = {number for number, feature in stored if not torch.equal(feature, own[number])}
        filling = {number for number, _ in stored if 25 <= number < 30}
        assert filling, "some of the examples that found no free place are still there"
        assert wrong == (filling if features == "as_coded" else set())
        for number, feature in stored:
            if number in wrong:
                assert torch.equal(feature, own[number - 5])

    def test_the_factor(self):
        method = started("hpcr", {"lr": 0.1, "memories": 25}, 0)
        for batch, value in LOSSES["pcr"]["hpcr_tau_s"]["values"].items():
            method.batches = int(batch)
            assert method.factor() == pytest.approx(value, rel=1e-9)

    def test_the_distillation_of_samples_is_a_cross_entropy_of_rows(self):
        vectors = normalize(
            torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=2
        )
        now, then = vectors
        expected = 0.0
        for i in range(5):
            others = [j for j in range(5) if j != i]
            old, new = (torch.softmax(each[others] @ each[i] / 0.09, 0) for each in (then, now))
            expected -= float((old * new.log()).sum()) / 5
        assert float(similarity_distillation(now, then, 0.09)) == pytest.approx(expected, rel=1e-9)


class TestUer:
    def test_the_loss(self):
        method = started("uer", {"lr": 0.05, "memories": 25, "scale": 7.0}, 3)
        slots = np.array([3, 11, 24, 0])
        method.replayed = lambda: slots
        batch, module = batch_of(method, 3), method.learner.module
        with torch.no_grad():
            features, weights = module.features(batch.x), method.head.weight
            angles = torch.tensor([[float(f @ w / (f.norm() * w.norm())) for w in weights] for f in features])
            x, y = method.examples(slots)
            expected = cross_entropy(7.0 * angles, batch.y) + cross_entropy(module.features(x) @ weights.T, y)
            assert float(method.loss(batch)) == pytest.approx(float(expected), rel=1e-5)
            tests = method.stream.tests(0)[0]
            assert torch.allclose(method.scores(tests), module.features(tests) @ weights.T, atol=1e-6)

    def test_the_stream_does_not_lengthen_weights(self):
        """The gradient of the stream's loss is at right angles to each class's weights."""
        method = started("uer", {"lr": 0.05, "memories": 25}, 3)
        method.replayed = lambda: np.empty(0, np.int64)
        weights = method.head.weight
        gradient = torch.autograd.grad(method.loss(batch_of(method, 3)), weights)[0]
        assert gradient.abs().max() > 1e-3
        assert (gradient * weights).sum(1).abs().max() < 1e-6


class TestEnMix:
    @pytest.mark.parametrize("memories", [[], [3, 11, 24, 0]])
    def test_the_loss(self, memories):
        """Each image mixed by itself, and one target for each that has the parts of its two labels."""
        method = started("enmix", {"lr": 0.05, "memories": 25, "beta": 0.4, "augmentation": "flip"}, 3, seed=1)
        slots = np.array(memories, np.int64)
        method.replayed = lambda: slots
        batch = batch_of(method, 3)
        old_x, old_y = method.examples(slots)
        images, labels = torch.cat([batch.x, old_x]), torch.cat([batch.y, old_y]).tolist()
        images = method.learner.augmented(images, "flip", "3 mixed")
        rng = method.draws.keyed("mixing 3")
        part, partners = rng.beta(0.4, 0.4), rng.permutation(len(images))
        total = 0.0
        with torch.no_grad():
            for i, j in enumerate(partners):
                mixed = part * images[i] + (1 - part) * images[j]
                target = torch.zeros(10)
                target[labels[i]] += part
                target[labels[j]] += 1 - part
                total -= float(target @ method.learner.logits(mixed.unsqueeze(0))[0].log_softmax(0)) / len(images)
            assert float(method.loss(batch)) == pytest.approx(total, rel=1e-5)
        assert 0.01 < part < 0.99


class TestNearestMean:
    def measured(self, embedded: Any, **changes: Any) -> float:
        """The final accuracy over all classes."""
        order = changes.pop("task_order", None)
        benchmark = {"name": "class-incremental", "dataset": "mnist", "source": "embedded", "train_per_class": 60}
        settings = {"batch": changes.pop("batch", 10)}
        resolved = resolve(
            {"benchmark": benchmark | changes, "model": {"name": "mlp", "hidden": [40, 30]}, "method": "nearest_mean"}
            | {"hyperparameters": settings}
        )
        trial = Trial(
            version=1, track="vision", precision="float32", seed=0, evaluate="after_task", randomness="clray",
            engine="auto", task_order=order, **resolved,
        )  # fmt: skip
        rows = run(train(trial, embedded, "cpu"))
        last = max(row.trained_tasks for row in rows)
        values = [row.value for row in rows if row.trained_tasks == last and row.metric == "accuracy"]
        return float(np.mean(values))

    def test_no_order_makes_a_difference(self, embedded):
        expected = self.measured(embedded)
        assert expected > 0.4
        changes: list[dict[str, Any]] = [
            {"class_order": [9, 1, 4, 7, 0, 2, 5, 8, 3, 6]},
            {"class_order": 3},
            {"class_order": "trial", "tasks": 10},
            {"task_order": [4, 2, 0, 1, 3]},
            {"tasks": 2, "boundaries": "hidden"},
            {"batch": 7},
        ]
        assert [self.measured(embedded, **change) for change in changes] == pytest.approx([expected] * 6, abs=1e-9)

    def test_answers(self):
        method = started("nearest_mean", {}, 9)
        before = started("nearest_mean", {}, 0).learner.module.state_dict()
        assert all(torch.equal(value, before[name]) for name, value in method.learner.module.state_dict().items())
        x, y = method.stream.examples(np.arange(90))
        with torch.no_grad():
            features = [f / f.norm() for f in method.learner.module.eval().features(x)]
            own = {c: [f for f, label in zip(features, y, strict=True) if label == c] for c in set(y.tolist())}
            means = {c: torch.stack(each).mean(0) for c, each in own.items()}
            tests = method.stream.tests(1)[0]
            expected = []
            for feature in method.learner.module.features(tests):
                distances = {c: float((feature / feature.norm() - mean).norm()) for c, mean in means.items()}
                expected.append(min(distances, key=lambda c: distances[c]))
        assert method.scores(tests).argmax(1).tolist() == expected
        assert len(set(expected)) > 1

    def test_enlarged_images(self):
        method = started("nearest_mean", {"resize": 8}, 1)
        plain = started("nearest_mean", {}, 1)
        assert torch.allclose(method.sums, plain.sums, atol=1e-6), "images of 8 pixels stay as they are"
        sizes = []
        method.settings = method.settings.model_copy(update={"resize": 12})
        method.learner.still_features = lambda x: sizes.append(tuple(x.shape)) or torch.ones(len(x), 2)
        method._features(method.stream.tests(0)[0])
        assert sizes == [(20, 3, 12, 12)]
