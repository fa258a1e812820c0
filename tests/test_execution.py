"""A trial that is interrupted anywhere, in this process or another, ends with the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner
from waiting import GUARD

from clray import execution as execution_module
from clray.checkpoints import Checkpoints, read_state, write_state
from clray.cli import app
from clray.errors import DataError, Diverged, OtherCodeError, StateError
from clray.execution import Execution, describe_failure
from clray.launch import run_here
from clray.leases import RunsElsewhere, acquire
from clray.loading import load_sweep
from clray.planning import plan
from clray.record import Record
from clray.selection import Selection
from clray.store import Store
from clray.work import Task

pytestmark = pytest.mark.usefixtures("kernels")
VARIANTS = ("online", "independent", "task_input", "ewc", "gem", "er", "er5", "mer", "mer6", "mer7")
EAGER = ("ewc", "gem", "er", "mer7", "task_input")
"""Methods whose eager form has a state of its own, or whose draws could be lost."""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def task(tiny: Path, store: Store, variant: str, *changes: str, seed: int = 0) -> Task:
    """A trial as ``clray run`` makes it, with a checkpoint only where a test asks for one."""
    sweep = load_sweep(tiny, Selection(only=(variant,), seeds=(seed,), set=changes))
    [planned] = plan({"tiny": sweep}, store).trials
    return planned.task(checkpoint_seconds=1e9)


def keep(store: Store, id: str, state: dict[str, Any]) -> None:
    """Put a state among a trial's checkpoints."""
    Checkpoints(store, id).write(lambda file: write_state(id, state, file))


def newest_state(store: Store, id: str) -> dict[str, Any]:
    for kept in Checkpoints(store, id).read():
        assert kept.content is not None
        return read_state(id, kept.content)
    raise AssertionError("no checkpoint")


def digest(execution: Execution) -> str:
    """A hash of all arrays of the method: its weights, its memory."""
    arrays, waiting = [], [execution._training.state_dict()["method"]]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, dict):
            waiting += [part[key] for key in sorted(part)]
        elif isinstance(part, list):
            waiting += part
        elif hasattr(part, "numpy"):
            arrays.append(part.numpy().tobytes())
    return hashlib.sha256(b"".join(arrays)).hexdigest()


def to_the_end(execution: Execution) -> tuple[list[Any], str]:
    while not execution.done:
        execution.step()
    return execution.measurements, digest(execution)


def part_of_the_way(execution: Execution, examples: int) -> None:
    """As a process that was told to stop: after some examples, wherever that is in a task."""
    training: Any = execution._training
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clray.vision.trial._AT_ONCE", 1)
        while training.step < examples:
            if training.evaluator.due or training.plan.visit_is_over:
                execution.step()
            else:
                training.step += training._learn()


@pytest.fixture
def uninterrupted(tiny, tmp_path) -> Any:
    def run(variant: str, *changes: str) -> tuple[list[Any], str]:
        elsewhere = Store(tmp_path / "uninterrupted")
        return to_the_end(Execution(task(tiny, elsewhere, variant, *changes), elsewhere))

    return run


class TestOtherCode:
    """The process that runs a trial may have another checkout than the one that planned it."""

    def test_it_is_refused_before_anything_is_trained(self, tiny, store):
        todo = dataclasses.replace(task(tiny, store, "online"), code="0123456789abcdef")
        with pytest.raises(OtherCodeError, match="not the code that this launch was planned with"):
            Execution(todo, store)
        assert not store.leased()
        assert store.read(todo.id) is None

    def test_a_file_that_was_edited_before_its_import_is_refused(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "online")
        monkeypatch.setattr(execution_module, "loaded_digest", lambda trial: "0123456789abcdef")
        with pytest.raises(OtherCodeError):
            Execution(todo, store)
        assert not store.leased()

    def test_the_record_names_the_code_that_was_planned_with(self, tiny, store):
        todo = task(tiny, store, "online")
        to_the_end(Execution(todo, store))
        assert store.read(todo.id).provenance["code"] == todo.code


IN_ANOTHER_PROCESS = """
import json, sys
sys.path.insert(0, {tests!r})
from test_execution import digest, to_the_end
from clray.execution import Execution
from clray.work import Task
from clray.store import Store
for task in json.loads(sys.argv[1]):
    execution = Execution(Task.from_json(task), Store(sys.argv[2]))
    measured, weights = to_the_end(execution)
    print(json.dumps([execution.resumed, measured, weights]))
"""


STOPS_IN_THE_MIDDLE = """
import json, sys
from clray.execution import Execution
from clray.work import Task
from clray.store import Store
execution = Execution(Task.from_json(sys.argv[1]), Store(sys.argv[2]))
while execution.progress < 0.5:
    execution.step()
print("in the middle", flush=True)
sys.stdin.read()
"""


def another_process(tasks: list[Task], store: Store) -> list[str]:
    """The command that takes trials up elsewhere and prints how far they had come, and how they ended."""
    code = IN_ANOTHER_PROCESS.format(tests=str(Path(__file__).parent))
    return [sys.executable, "-c", code, json.dumps([task.to_json() for task in tasks]), store.uri]


class TestInterrupted:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_in_this_process_at_several_points(self, tiny, store, uninterrupted, variant):
        """Within tasks, at their ends before and after the evaluation, and again soon after."""
        todo = task(tiny, store, variant)
        for examples in (1, 17, 30, 31, 45, 60, 89):
            execution = Execution(todo, store)
            part_of_the_way(execution, examples)
            execution.save()
        execution = Execution(todo, store)
        assert execution.resumed == pytest.approx(89 / 90)
        assert to_the_end(execution) == uninterrupted(variant)

    @pytest.mark.parametrize("variant", ["task_input", "gem", "mer"])
    def test_at_each_of_its_own_stops(self, tiny, store, uninterrupted, variant):
        """Just after an evaluation, which must not be made again."""
        todo = task(tiny, store, variant, "evaluate=25")
        for _ in range(4):
            execution = Execution(todo, store)
            execution.step()
            execution.save()
        assert to_the_end(Execution(todo, store)) == uninterrupted(variant, "evaluate=25")

    @pytest.mark.parametrize("variant", EAGER)
    def test_on_the_eager_engine(self, tiny, store, uninterrupted, variant):
        todo = task(tiny, store, variant, "engine=eager")
        for examples in (10, 44, 75):
            execution = Execution(todo, store)
            part_of_the_way(execution, examples)
            execution.save()
        assert to_the_end(Execution(todo, store)) == uninterrupted(variant, "engine=eager")

    @pytest.mark.parametrize("variant", ["er", "mer", "mer7"])
    def test_with_the_official_draws(self, tiny, store, uninterrupted, variant):
        todo = task(tiny, store, variant, "randomness=official")
        for examples in (10, 44):
            execution = Execution(todo, store)
            part_of_the_way(execution, examples)
            execution.save()
        assert to_the_end(Execution(todo, store)) == uninterrupted(variant, "randomness=official")

    def test_and_continued_by_another_process(self, tiny, store, uninterrupted):
        tasks = [task(tiny, store, variant) for variant in VARIANTS]
        for todo in tasks:
            execution = Execution(todo, store)
            part_of_the_way(execution, 47)
            execution.stop()
        done = subprocess.run(another_process(tasks, store), capture_output=True, text=True, timeout=GUARD)
        assert done.returncode == 0, done.stderr
        ended = [json.loads(line) for line in done.stdout.splitlines()]
        for variant, (resumed, measured, weights) in zip(VARIANTS, ended, strict=True):
            assert resumed == pytest.approx(47 / 90)
            assert ([tuple(m) for m in measured], weights) == uninterrupted(variant), variant

    def test_at_the_very_end_before_the_last_evaluation(self, tiny, store, uninterrupted):
        todo = task(tiny, store, "mer")
        execution = Execution(todo, store)
        part_of_the_way(execution, 90)
        execution.save()
        assert execution.progress < 1
        assert to_the_end(Execution(todo, store)) == uninterrupted("mer")

    def test_a_checkpoint_changes_nothing_for_who_goes_on(self, tiny, store, uninterrupted):
        execution = Execution(task(tiny, store, "gem"), store)
        for examples in (5, 35, 65):
            part_of_the_way(execution, examples)
            execution.save()
        assert to_the_end(execution) == uninterrupted("gem")

    def test_what_a_process_did_after_its_checkpoint_is_done_again(self, tiny, store, uninterrupted):
        execution = Execution(task(tiny, store, "er"), store)
        part_of_the_way(execution, 20)
        execution.save()
        part_of_the_way(execution, 70)  # and then it died
        again = Execution(task(tiny, store, "er"), store)
        assert again.resumed == pytest.approx(20 / 90)
        assert to_the_end(again) == uninterrupted("er")

    def test_a_killed_process(self, tiny, store, uninterrupted):
        """Killed in the middle, with checkpoints as often as can be."""
        changes = ("evaluate=10",)
        todo = dataclasses.replace(task(tiny, store, "mer", *changes), checkpoint_seconds=0.0)
        command = [sys.executable, "-c", STOPS_IN_THE_MIDDLE, todo.to_json(), store.uri]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"in the middle\n"
        process.kill()
        process.communicate()
        assert not store.finished()
        execution = Execution(todo, store)
        assert 0 < execution.resumed < 1
        assert to_the_end(execution) == uninterrupted("mer", *changes)


class TestTornCheckpoints:
    def interrupted(self, tiny: Path, store: Store) -> Task:
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        for examples in (20, 50):
            part_of_the_way(execution, examples)
            execution.save()
        return todo

    def test_the_one_before_is_taken(self, tiny, store, uninterrupted):
        todo = self.interrupted(tiny, store)
        path = Path(store.path("checkpoints", f"{todo.id}.ckpt"))
        path.write_bytes(path.read_bytes()[:-100])
        execution = Execution(todo, store)
        assert execution.resumed == pytest.approx(20 / 90)
        assert to_the_end(execution) == uninterrupted("er")

    def test_or_it_begins_again(self, tiny, store, uninterrupted):
        todo = self.interrupted(tiny, store)
        for file in Path(store.path("checkpoints")).iterdir():
            file.write_bytes(file.read_bytes()[:-100])
        execution = Execution(todo, store)
        assert execution.resumed == 0
        assert to_the_end(execution) == uninterrupted("er")

    def test_an_intact_one_with_foreign_content_is_passed_over(self, tiny, store, uninterrupted):
        todo = self.interrupted(tiny, store)
        for state in (
            {"training": {"position": 3}, "measurements": [], "seconds": 0.0},
            {"training": {"position": 3, "evaluated": False, "randomness": {}, "method": {}}, "seconds": 0.0},
            {},
        ):
            keep(store, todo.id, state)
            execution = Execution(todo, store)
            assert execution.resumed == pytest.approx(50 / 90)
            newest = Path(store.path("checkpoints", f"{todo.id}.ckpt"))
            newest.with_name(f"{newest.name}.previous").replace(newest)
        assert to_the_end(execution) == uninterrupted("er")

    def test_one_of_another_trial_is_not_taken(self, tiny, store, uninterrupted):
        todo = self.interrupted(tiny, store)
        other = task(tiny, store, "er", seed=1)
        Path(store.path("checkpoints", f"{todo.id}.ckpt")).replace(store.path("checkpoints", f"{other.id}.ckpt"))
        execution = Execution(other, store)
        assert execution.resumed == 0

    def test_the_one_that_was_of_use_outlives_the_next_save(self, tiny, store):
        """A newest one of no use is not what is kept beside the next: else a death over that would leave none."""
        todo = self.interrupted(tiny, store)
        keep(store, todo.id, {"training": {}})
        previous = Path(store.path("checkpoints", f"{todo.id}.ckpt.previous"))
        of_use = previous.read_bytes()
        execution = Execution(todo, store)
        assert execution.resumed == pytest.approx(50 / 90)
        part_of_the_way(execution, 60)
        execution.save()
        assert previous.read_bytes() == of_use
        assert newest_state(store, todo.id)["training"]["at"][0] == 60

    def test_what_is_passed_over_is_told(self, tiny, store):
        todo = self.interrupted(tiny, store)
        newest = Path(store.path("checkpoints", f"{todo.id}.ckpt"))
        newest.write_bytes(newest.read_bytes()[:-100])
        expected = f"{newest}: passed over: it is torn"
        command = ["run", str(tiny), "--variant", "er", "--seed", "0", "--results", store.uri]
        said = CliRunner().invoke(app, command, catch_exceptions=False).output
        assert f"{expected}\n" in said
        assert "from 22%" in said
        [*_, last] = store.read(todo.id).provenance["executions"]
        assert last["passed_over"] == [expected]

    def test_a_launch_tells_it_too(self, tiny, store):
        todo = self.interrupted(tiny, store)
        Path(store.path("claims", f"{todo.id}.json")).unlink()  # who began it has let it go
        for file in Path(store.path("checkpoints")).iterdir():
            file.write_bytes(b"torn")
        trials = plan({"tiny": load_sweep(tiny, Selection(only=("er",), seeds=(0,)))}, store)
        out = io.StringIO()
        run_here(trials, store, Console(file=out, width=200))
        for name in (".ckpt", ".ckpt.previous"):
            place = store.path("checkpoints", f"{todo.id}{name}")
            assert out.getvalue().count(f"er seed 0 ({todo.id}): {place}: passed over: it is torn\n") == 1


NONSENSE = (None, "x", b"x", [], {}, [None], {"": None}, float("nan"), -1, 10**400, True)


def places(state: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in state.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def mutated(state: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = place
    return {**state, key: mutated(state[key], tuple(rest), value) if rest else value}


TASKS = """\
version: 1
paper: tag
title: Two tasks of seconds
track: vision
benchmark:
  {name: rotated-mnist, tasks: 3, degrees: 30, heads: multi, train_per_task: 60, test_per_task: 50, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0]
variants:
  naive: {method: naive, lr: 0.1}
  er: {method: er_reservoir, lr: 0.1, memories_per_class: 1}
  agem: {method: agem, lr: 0.1, memories_per_class: 1}
  tag: {method: naive, optimizer: tag-adam, lr: 0.005, b: 5}
"""


SLOW = pytest.mark.slow


class TestForeignCheckpoints:
    """Any key of a checkpoint with a value of another type: the trial goes on from it, or from another, or begins."""

    def begun(self, todo: Task, store: Store, points: tuple[int, ...]) -> dict[str, Any]:
        """A trial with two checkpoints. Returns the state of the newest."""
        execution = Execution(todo, store)
        for examples in points:
            part_of_the_way(execution, examples)
            execution.save()
        return newest_state(store, todo.id)

    def spoil(self, store: Store, id: str, state: dict[str, Any]) -> None:
        """Put a state in place of the newest checkpoint."""
        Checkpoints(store, id).write(lambda file: write_state(id, state, file), replace=True)

    def test_of_the_checkpoint_s_own(self, tiny, store, uninterrupted):
        todo, expected = task(tiny, store, "er"), uninterrupted("er")
        state = self.begun(todo, store, (20, 50))
        kept = shutil.copytree(store.path(), f"{store.path()}.kept")
        for key in state:
            for value in NONSENSE:
                shutil.rmtree(store.path())
                shutil.copytree(kept, store.path())
                self.spoil(store, todo.id, {**state, key: value})
                execution = Execution(todo, store)
                fine = key in ("executions", "gpu_memory") and value in ([], {}) and type(value) is type(state[key])
                fine = fine or (key == "measurements" and value == [])
                assert (execution.resumed > 0.5) == bool(fine), (key, value)
                assert bool(execution.passed_over) != bool(fine)
                if key != "measurements" or not fine:
                    assert to_the_end(execution) == expected, (key, value)
                    json.dumps(store.read(todo.id).provenance, allow_nan=False)

    @pytest.mark.parametrize("variant", ["er", *(pytest.param(v, marks=SLOW) for v in ("gem", "mer", "ewc", "er5"))])
    def test_of_a_stream_s(self, tiny, store, uninterrupted, variant):
        todo, expected = task(tiny, store, variant), uninterrupted(variant)
        self.spoil_each(
            todo, store, self.begun(todo, store, (20, 50)), lambda: to_the_end(Execution(todo, store)), expected
        )

    @pytest.mark.parametrize("variant", ["er", *(pytest.param(v, marks=SLOW) for v in ("naive", "agem", "tag"))])
    def test_of_a_trial_s_that_learns_task_by_task(self, store, tmp_path, variant):
        file = tmp_path / "tasks.yaml"
        file.write_text(TASKS)
        todo = task(file, store, variant)

        def end() -> Any:
            execution = Execution(todo, store)
            while not execution.done:
                execution.step()
            return execution.measurements

        expected = end()
        Path(store.path("records", f"{todo.id}.parquet")).unlink()
        execution = Execution(todo, store)
        for _ in range(2):
            execution.step()
            execution.save()
        self.spoil_each(todo, store, newest_state(store, todo.id), end, expected)

    def spoil_each(
        self, todo: Task, store: Store, state: dict[str, Any], end: Callable[[], Any], expected: Any
    ) -> None:
        """Put values of other types at every key of the training's state, and the state in both checkpoints."""
        turn = random.Random(0)
        for place in places(state["training"], ("training",)):
            at = state
            for key in place:
                at = at[key]
            values = [v for v in NONSENSE if not isinstance(v, (int, float)) and not isinstance(v, type(at))]
            value = turn.choice(values if at is not None else ["x"])
            Path(store.path("records", f"{todo.id}.parquet")).unlink(missing_ok=True)
            for _ in range(2):
                keep(store, todo.id, mutated(state, place, value))
            assert end() == expected, (place, value)


class TestStates:
    """A method's state is read back as soon as it is written, not only when a trial needs it."""

    def with_state(self, execution: Execution, **more: Any) -> None:
        training: Any = execution._training
        own = training.state_dict
        training.state_dict = lambda: {**(state := own()), "method": {**state["method"], **more}}

    def test_numpy_numbers_are_read_back_as_what_they_are(self, tiny, store, uninterrupted, monkeypatch):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        part_of_the_way(execution, 20)
        self.with_state(execution, scale=np.float32(0.1), seen=[np.int64(3)], on=np.bool_(True))
        execution.save()
        method = newest_state(store, todo.id)["training"]["method"]
        assert [type(method["scale"]), type(method["seen"][0]), type(method["on"])] == [np.float32, np.int64, np.bool_]
        again = Execution(todo, store)
        assert again.resumed == pytest.approx(20 / 90)
        assert to_the_end(again) == uninterrupted("er")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (
                np.datetime64("2020-01-01"),
                r"state\.training\.method\.odd: a NumPy datetime64",
            ),
            (Path("a"), "a method's state may hold numbers, texts, NumPy arrays, tensors"),
        ],
    )
    def test_what_cannot_be_read_back_is_refused_when_it_is_written(self, tiny, store, value, reason):
        execution = Execution(dataclasses.replace(task(tiny, store, "er"), checkpoint_seconds=0.0), store)
        self.with_state(execution, odd=value)
        with pytest.raises(StateError, match=reason):
            execution.step()
        assert store.checkpointed() == store.leased() == set()
        assert [p.name for p in Path(store.path()).rglob("*") if p.is_file()] == []


def diverging(execution: Execution, after: int) -> None:
    """Let a trial diverge at its so manieth step."""
    advance, left = execution._training.advance, [after]

    def diverge() -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Diverged(3512, 3, "weights")
        return advance()

    execution._training.advance = diverge  # type: ignore[method-assign]


class TestDiverged:
    WHERE: ClassVar = {"step": 3512, "task": 3, "what": "weights"}

    def diverged(self, tiny: Path, store: Store) -> Execution:
        execution = Execution(dataclasses.replace(task(tiny, store, "er"), checkpoint_seconds=0.0), store)
        diverging(execution, 3)
        while not execution.done:
            execution.step()
        return execution

    def test_it_ends_with_a_record_of_what_was_measured_before(self, tiny, store):
        execution = self.diverged(tiny, store)
        record = store.read(execution.task.id)
        assert record.status == "diverged"
        assert record.provenance["diverged"] == execution.diverged == self.WHERE
        assert {m.step for m in record.measurements} == {0, 30}
        assert record.metrics == execution.metrics == {}, "of some of the tasks there is no published metric"
        assert execution.end.diverged == self.WHERE
        assert [p.name for p in Path(store.path()).rglob("*") if p.is_file()] == [f"{record.id}.parquet"]

    def test_it_is_over(self, tiny, store, monkeypatch):
        todo = self.diverged(tiny, store).task
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built again"))
        again = Execution(todo, store)
        assert again.done
        assert again.diverged == self.WHERE
        [planned] = plan({"tiny": load_sweep(tiny, Selection(only=("er",), seeds=(0,)))}, store).trials
        assert (planned.state, planned.diverged) == ("finished", True)
        assert Execution(dataclasses.replace(todo, rerun=True), store).done

    def test_until_other_code_runs_it_again(self, tiny, store, uninterrupted):
        todo = self.diverged(tiny, store).task
        record = store.read(todo.id)
        store.write(dataclasses.replace(record, provenance={**record.provenance, "code": "another"}))
        assert to_the_end(Execution(dataclasses.replace(todo, rerun=True), store)) == uninterrupted("er")
        assert store.read(todo.id).status == "finished"
        assert len(store.superseded(todo.id)) == 2

    def test_every_command_says_so(self, tiny, store, monkeypatch):
        id = self.diverged(tiny, store).task.id
        words = "diverged in task 4 after 3,512 examples: weights not finite"
        at = ["--results", store.uri]
        one = [str(tiny), "--variant", "er", "--seed", "0", *at]

        def said(*command: str) -> str:
            done = CliRunner().invoke(app, list(command), catch_exceptions=False)
            assert done.exit_code == 0
            return done.output

        assert words in said("run", *one)
        assert json.loads(said("run", *one, "--json"))["diverged"] == self.WHERE
        assert "1 of the finished trials diverged" in said("plan", str(tiny), "--only", "er", *at)
        assert "1 finished trial (1 of them diverged)" in said("status", *at)
        assert '"status": "diverged"' in said("show", id, *at)

    def test_a_launch_says_so_and_does_not_fail(self, tiny, store, monkeypatch):
        begin = Execution._begin

        def begin_and_diverge(execution: Execution) -> None:
            begin(execution)
            diverging(execution, 2)

        monkeypatch.setattr(Execution, "_begin", begin_and_diverge)
        trials = plan({"tiny": load_sweep(tiny, Selection(only=("er",)))}, store)
        out = io.StringIO()
        outcome = run_here(trials, store, Console(file=out, width=200))
        assert (len(outcome.finished), outcome.failed) == (2, {})
        assert "er seed 1: diverged in task 4 after 3,512 examples: weights not finite" in out.getvalue()


class TestArtifacts:
    """A trial's artifacts are written after its record, and an error in writing them never loses the record."""

    def finish(self, tiny: Path, store: Store, artifacts: Callable[[], dict[str, bytes]]) -> Any:
        execution = Execution(task(tiny, store, "er"), store)
        execution._training.artifacts = artifacts  # type: ignore[attr-defined]
        to_the_end(execution)
        assert store.leased() == set()
        return store.read(execution.task.id)

    def test_the_record_is_there_when_they_are_made(self, tiny, store):
        def artifacts() -> dict[str, bytes]:
            [id] = store.finished()
            assert store.leased() == {id}, "nobody takes the trial for over who waits for it"
            return {"x.json": b"1", "y.json": b"2"}

        record = self.finish(tiny, store, artifacts)
        assert store.artifacts(record.id) == ["x.json", "y.json"]
        assert store.read_artifact(record.id, "y.json") == b"2"
        assert "missing_artifacts" not in record.provenance

    def test_one_that_cannot_be_made_is_noted(self, tiny, store):
        def artifacts() -> dict[str, bytes]:
            raise ValueError("Out of range float values are not JSON compliant")

        record = self.finish(tiny, store, artifacts)
        assert record.status == "finished"
        assert record.provenance["missing_artifacts"] == {
            "all": "ValueError: Out of range float values are not JSON compliant"
        }

    def test_one_that_cannot_be_written_is_noted_and_the_others_are_there(self, tiny, store):
        (Path(store.path()) / "artifacts").mkdir(parents=True)
        record = self.finish(tiny, store, lambda: {"sub/x": b"1", "y": b"2"} | {"z" * 300: b"3"})
        assert store.artifacts(record.id) == ["y"]
        assert "cannot be written" in record.provenance["missing_artifacts"]["z" * 300]


class TestFinished:
    def test_a_finished_trial_is_not_even_built(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "online")
        first = to_the_end(Execution(todo, store))
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built again"))
        again = Execution(todo, store)
        assert again.done
        assert again.progress == 1
        assert again.measurements == first[0]
        assert again.metrics["RA"] == pytest.approx(again.metrics["LA"] + again.metrics["BTI"])
        assert again.seconds > 0

    def test_unless_it_is_asked_for_and_other_code_made_it(self, tiny, store):
        todo = task(tiny, store, "online")
        first = to_the_end(Execution(todo, store))
        again = dataclasses.replace(todo, rerun=True)
        assert Execution(again, store).done, "this code made it"
        record = store.read(todo.id)
        store.write(dataclasses.replace(record, provenance={**record.provenance, "code": "another"}))
        assert Execution(todo, store).done
        assert to_the_end(Execution(again, store)) == first
        assert Execution(again, store).done, "it is run again once"

    def test_a_torn_record_is_made_again(self, tiny, store):
        todo = task(tiny, store, "online")
        first = to_the_end(Execution(todo, store))
        Path(store.path("records", f"{todo.id}.parquet")).write_bytes(b"torn")
        assert to_the_end(Execution(todo, store)) == first
        assert isinstance(store.read(todo.id), Record)

    def test_one_that_came_to_no_number_is_no_record_but_a_failure(self, tiny, store, monkeypatch):
        """A record that no reader takes would be made again with every launch."""
        execution = Execution(task(tiny, store, "online"), store)
        monkeypatch.setattr(execution._training.method, "correct", lambda *_: float("nan"))
        with pytest.raises(StateError, match="an accuracy of it is no number from 0 to 1"):
            to_the_end(execution)
        assert store.finished() == store.leased() == set()

    def test_its_record_says_all(self, tiny, store):
        todo = task(tiny, store, "er")
        to_the_end(Execution(todo, store))
        record = store.read(todo.id)
        assert record.status == "finished"
        assert (record.variant, record.sweep) == ("er", "tiny")
        assert record.data["source"] == "embedded"
        assert record.id == record.trial.id(record.data["fingerprint"])
        facts = {"code", "git", "packages", "machine", "seconds", "cpu_seconds", "engine", "device"}
        assert facts <= set(record.provenance)
        assert record.provenance["engine"] == "fused"
        assert record.provenance["progress"] == 1

    def test_nothing_else_is_left_of_it(self, tiny, store):
        todo = dataclasses.replace(task(tiny, store, "er"), checkpoint_seconds=0.0)
        to_the_end(Execution(todo, store))
        assert [p.name for p in Path(store.path()).rglob("*") if p.is_file()] == [f"{todo.id}.parquet"]


class TestOnTheWay:
    def test_who_watches_sees_a_record_so_far(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        part_of_the_way(execution, 40)
        execution.save()
        record = store.read(todo.id, "running")
        assert record.status == "running"
        assert record.provenance["progress"] == pytest.approx(40 / 90)
        assert {m.step for m in record.measurements} == {0, 30}

    def test_seconds_add_up_over_processes(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        part_of_the_way(execution, 40)
        execution.save()
        first = execution.seconds
        assert first > 0
        assert Execution(todo, store).seconds >= first

    def test_checkpoints_are_as_far_apart_as_declared(self, tiny, store):
        often = Execution(dataclasses.replace(task(tiny, store, "er"), checkpoint_seconds=0.0), store)
        often.step()
        assert store.checkpointed() == {often.task.id}
        seldom = Execution(task(tiny, store, "mer"), store)
        seldom.step()
        assert seldom.task.id not in store.checkpointed()

    @pytest.mark.parametrize(
        ("least", "a_save", "saved_at"),
        [
            (15.0, 0.1, [20, 40, 60, 80]),  # what is declared is more than 20 times a save
            (15.0, 2.2, [20, 70]),  # 20 times a save is more; counted from its end
            (0.0, 2.2, [10, 20, 30, 40, 50, 60, 70, 80]),  # at every stop, whatever it costs
        ],
    )
    def test_slow_checkpoints_are_further_apart(self, tiny, store, monkeypatch, least, a_save, saved_at):
        """On a clock of the test's own: a step takes 10 seconds, a save what is given."""
        now, trained, saved = [0.0], [0], []
        monkeypatch.setattr("clray.execution.clock", lambda: now[0])
        todo = dataclasses.replace(task(tiny, store, "online", "evaluate=10"), checkpoint_seconds=least)
        execution = Execution(todo, store)
        advance, write = execution._training.advance, execution._checkpoints.write

        def slow_advance() -> Any:
            now[0] += 10
            trained[0] += 10
            return advance()

        def slow_write(*arguments: Any) -> None:
            now[0] += a_save
            saved.append(trained[0])
            write(*arguments)

        monkeypatch.setattr(execution._training, "advance", slow_advance)
        monkeypatch.setattr(execution._checkpoints, "write", slow_write)
        while trained[0] < 80:
            execution.step()
        assert saved == saved_at

    def test_threads_are_pinned(self, tiny, store):
        import torch

        Execution(dataclasses.replace(task(tiny, store, "online"), threads=2), store)
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_NUM_THREADS"] == "2"
        Execution(task(tiny, store, "online"), store)
        assert torch.get_num_threads() == 1


class TestLease:
    """An execution holds its lease as long as it should. The leases themselves are tested in ``test_leases.py``."""

    def test_it_is_held_from_the_first_to_the_last(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        [id] = store.leased()
        assert id == todo.id
        notes = execution._holder.lease.notes
        assert (notes["variant"], notes["seed"], notes["progress"]) == ("er", 0, 0.0)
        execution.step()
        execution.step()
        assert execution._holder.lease.notes["progress"] == pytest.approx(1 / 3)
        assert store.leased() == {todo.id}
        to_the_end(execution)
        assert store.leased() == set()
        assert store.read(todo.id).provenance["executions"] == execution.executions

    def test_it_is_let_go_at_a_stop_and_at_an_error(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        execution.step()
        execution.stop()
        assert store.leased() == set()
        assert store.checkpointed() == {todo.id}
        again = Execution(todo, store)
        monkeypatch.setattr(again._training, "advance", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            again.step()
        assert store.leased() == set()
        with pytest.raises(DataError):
            Execution(dataclasses.replace(todo, data={**todo.data, "fingerprint": "foreign"}), store)
        assert store.leased() == set()

    def test_a_trial_that_another_launch_runs_is_not_even_built(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "er")
        hold = acquire(store, todo.id, "another launch")
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built"))
        with pytest.raises(RunsElsewhere):
            Execution(todo, store)
        command = ["run", str(tiny), "--variant", "er", "--seed", "0", "--results", store.uri]
        done = CliRunner().invoke(app, command)
        hold.release()
        assert isinstance(done.exception, RunsElsewhere)
        assert done.exception.exit_code == 1
        assert f"is being run by {hold.lease.owner}" in str(done.exception)

    def test_what_another_finished_in_the_last_moment_is_not_run_again(self, tiny, store, tmp_path, monkeypatch):
        todo, elsewhere = task(tiny, store, "er"), Store(tmp_path / "elsewhere")
        expected = to_the_end(Execution(todo, elsewhere))[0]

        def slowly(*args: Any, **notes: Any) -> Any:
            shutil.copytree(elsewhere.path(), store.path(), dirs_exist_ok=True)  # between the look and the lease
            return acquire(*args, **notes)

        monkeypatch.setattr("clray.execution.acquire", slowly)
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built"))
        execution = Execution(dataclasses.replace(todo, launch="mine"), store)
        assert execution.done
        assert execution.measurements == expected
        assert execution.end.owner
        assert store.leased() == set()

    def test_who_was_out_of_reach_for_long_leaves_it_to_the_other(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(dataclasses.replace(todo, launch="first"), store)
        execution.step()
        other = Execution(dataclasses.replace(todo, launch="first"), store)  # as after a failure of Ray's network
        execution._holder.renew()
        with pytest.raises(RunsElsewhere):
            execution.step()
        execution.stop()
        assert store.checkpointed() == set(), "nor does it write over what the other has saved"
        assert store.leased() == {todo.id}
        to_the_end(other)

    def test_who_lost_it_in_the_middle_of_a_step_does_not_save(self, tiny, store, monkeypatch):
        """Its heartbeat has not told it yet."""
        todo = dataclasses.replace(task(tiny, store, "er"), launch="first", checkpoint_seconds=0.0)
        execution = Execution(todo, store)
        advance = execution._training.advance

        def slow() -> Any:
            if not store.finished():
                to_the_end(Execution(todo, store))
            hold = acquire(store, todo.id, "a third one")
            held.append(hold)
            return advance()

        held: list[Any] = []
        monkeypatch.setattr(execution._training, "advance", slow)
        with pytest.raises(RunsElsewhere):
            execution.step()
        execution.stop()
        held[0].release()
        assert [p.name for p in Path(store.path()).rglob("*") if p.is_file()] == [f"{todo.id}.parquet"]

    def test_what_was_left_of_a_finished_trial_goes_when_somebody_finds_it(self, tiny, store):
        todo = task(tiny, store, "er")
        late = Execution(todo, store)
        part_of_the_way(late, 40)
        late.save()
        kept = shutil.copytree(store.path(), f"{store.path()}.kept")
        to_the_end(late)
        for looks in (lambda: task(tiny, store, "er"), lambda: acquire(store, todo.id, "another")):
            shutil.copytree(Path(kept) / "running", store.path("running"), dirs_exist_ok=True)
            shutil.copytree(Path(kept) / "checkpoints", store.path("checkpoints"), dirs_exist_ok=True)
            store.write_failure(todo.id, {"error": "another launch lost it", "time": 0})
            said = CliRunner().invoke(app, ["status", "--results", store.uri]).output
            assert "1 finished trial, 0 begun" in said
            assert "another launch lost it" not in said
            hold = looks()
            task(tiny, store, "er")
            left = (store.running(), store.checkpointed(), store.failed())
            if isinstance(hold, Task):
                assert left == (set(), set(), set())
            else:
                assert left == ({todo.id},) * 3, "somebody runs it again"
                hold.release()

    def test_what_other_code_has_begun_anew_is_not_left_over(self, tiny, store):
        todo = task(tiny, store, "er")
        to_the_end(Execution(todo, store))
        record = store.read(todo.id)
        store.write(dataclasses.replace(record, status="running", provenance={**record.provenance, "code": "newer"}))
        task(tiny, store, "er")
        assert store.running() == {todo.id}

    def test_executions_that_left_no_checkpoint_are_known_from_their_leases(self, tiny, store):
        todo = task(tiny, store, "er")
        for launch in ("one", "two"):
            execution = Execution(dataclasses.replace(todo, launch=launch), store)
            execution._holder._over.set()  # it dies
            dead = dataclasses.replace(execution._holder.lease, processes="another boot")
            store.write_file(f"claims/{todo.id}.json", dead.to_bytes())
            path = store.path("claims", f"{todo.id}.json")
            os.utime(path, (time.time() - 60,) * 2)
        last = Execution(dataclasses.replace(todo, launch="three"), store)
        to_the_end(last)
        assert [e["launch"] for e in store.read(todo.id).provenance["executions"]] == ["one", "two", "three"]

    def test_status_tells_who_left_a_trial(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        execution.step()
        execution.save()
        gone = dataclasses.replace(execution._holder.lease, start_ticks=-5)
        execution._holder._over.set()
        store.write_file(f"claims/{todo.id}.json", gone.to_bytes())
        said = CliRunner().invoke(app, ["status", "--results", store.uri]).output
        assert "1 begun" in said
        assert f"{todo.id} er seed 0: 0%, left by {gone.owner}, which is gone" in said


def test_a_task_is_plain_data(tiny, store):
    todo = task(tiny, store, "er")
    assert Task.from_json(todo.to_json()) == todo


def test_a_failure_is_described():
    try:
        raise ValueError("what went wrong")
    except ValueError as error:
        described = describe_failure(error)
    assert described["error"] == "what went wrong"
    assert described["kind"] == "ValueError"
    assert "test_execution.py" in described["traceback"]
    assert json.loads(json.dumps(described)) == described
    assert describe_failure(KeyboardInterrupt())["error"] == "KeyboardInterrupt"
