"""A trial against the store: interrupted anywhere, in this process or another, it ends with the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clray.claims import RunsElsewhere, take
from clray.cli import app
from clray.errors import DataError
from clray.execution import Execution, Task, describe_failure
from clray.planning import plan
from clray.results import Record, Store, read_state, write_state
from clray.spec import Selection, load_sweep

pytestmark = pytest.mark.usefixtures("kernels", "read_data_once")
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
    store.write_checkpoint(id, lambda file: write_state(id, state, file))


def digest(execution: Execution) -> str:
    """Of the weights that answer for every task."""
    method = execution._training.method  # type: ignore[attr-defined]
    weights = [w for t in range(execution._training.stream.task_count) for w in method.weights(t)]  # type: ignore[attr-defined]
    return hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()


def to_the_end(execution: Execution) -> tuple[list[Any], str]:
    while not execution.done:
        execution.step()
    return execution.measurements, digest(execution)


def part_of_the_way(execution: Execution, examples: int) -> None:
    """As a process that was told to stop: after some examples, wherever that is in a task."""
    training: Any = execution._training
    while training.position < examples:
        if training._evaluation_is_due():
            execution.step()
        else:
            training.method.observe(training.position)
            training.position += 1
            training.evaluated = False


@pytest.fixture
def uninterrupted(tiny, tmp_path) -> Any:
    def run(variant: str, *changes: str) -> tuple[list[Any], str]:
        elsewhere = Store(tmp_path / "uninterrupted")
        return to_the_end(Execution(task(tiny, elsewhere, variant, *changes), elsewhere))

    return run


IN_ANOTHER_PROCESS = """
import json, sys
sys.path.insert(0, {tests!r})
from test_execution import digest, to_the_end
from clray.execution import Execution, Task
from clray.results import Store
for task in json.loads(sys.argv[1]):
    execution = Execution(Task(**task), Store(sys.argv[2]))
    measured, weights = to_the_end(execution)
    print(json.dumps([execution.resumed, measured, weights]))
"""


def another_process(tasks: list[Task], store: Store) -> list[str]:
    """The command that takes trials up elsewhere and prints how far they had come, and how they ended."""
    code = IN_ANOTHER_PROCESS.format(tests=str(Path(__file__).parent))
    return [sys.executable, "-c", code, json.dumps([task.to_dict() for task in tasks]), store.uri]


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
        done = subprocess.run(another_process(tasks, store), capture_output=True, text=True, timeout=120)
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
        """Killed while it trains, with checkpoints as often as can be."""
        changes = ("benchmark.train_per_task=400", "evaluate=10")
        todo = dataclasses.replace(task(tiny, store, "mer", *changes), checkpoint_seconds=0.0)
        process = subprocess.Popen(another_process([todo], store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            so_far = store.read(todo.id, "running")
            if isinstance(so_far, Record) and so_far.provenance["progress"] > 0.1:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
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

    def test_its_record_says_all(self, tiny, store):
        todo = task(tiny, store, "er")
        to_the_end(Execution(todo, store))
        record = store.read(todo.id)
        assert record.status == "finished"
        assert (record.variant, record.sweep) == ("er", "tiny")
        assert record.data["source"] == "embedded"
        assert record.id == record.trial.id(record.data["fingerprint"])
        assert {"code", "git", "packages", "machine", "seconds", "engine", "device"} <= set(record.provenance)
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
        advance, write = execution._training.advance, store.write_checkpoint

        def slow_advance() -> Any:
            now[0] += 10
            trained[0] += 10
            return advance()

        def slow_write(*arguments: Any) -> None:
            now[0] += a_save
            saved.append(trained[0])
            write(*arguments)

        monkeypatch.setattr(execution._training, "advance", slow_advance)
        monkeypatch.setattr(store, "write_checkpoint", slow_write)
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


class TestClaim:
    """What ``clray.claims`` promises is tested there; here, that an execution holds its claim as long as it should."""

    def test_it_is_held_from_the_first_to_the_last(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        [id] = store.claimed()
        assert id == todo.id
        notes = execution._hold.claim.notes
        assert (notes["variant"], notes["seed"], notes["progress"]) == ("er", 0, 0.0)
        execution.step()
        execution.step()
        assert execution._hold.claim.notes["progress"] == pytest.approx(1 / 3)
        assert store.claimed() == {todo.id}
        to_the_end(execution)
        assert store.claimed() == set()
        assert store.read(todo.id).provenance["executions"] == execution.executions

    def test_it_is_let_go_at_a_stop_and_at_an_error(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "er")
        execution = Execution(todo, store)
        execution.step()
        execution.stop()
        assert store.claimed() == set()
        assert store.checkpointed() == {todo.id}
        again = Execution(todo, store)
        monkeypatch.setattr(again._training, "advance", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            again.step()
        assert store.claimed() == set()
        with pytest.raises(DataError):
            Execution(dataclasses.replace(todo, data={**todo.data, "fingerprint": "foreign"}), store)
        assert store.claimed() == set()

    def test_a_trial_that_another_launch_runs_is_not_even_built(self, tiny, store, monkeypatch):
        todo = task(tiny, store, "er")
        hold = take(store, todo.id, "another launch")
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built"))
        with pytest.raises(RunsElsewhere):
            Execution(todo, store)
        command = ["run", str(tiny), "--variant", "er", "--seed", "0", "--results", store.uri]
        done = CliRunner().invoke(app, command)
        hold.release()
        assert isinstance(done.exception, RunsElsewhere)
        assert done.exception.exit_code == 1
        assert f"is being run by {hold.claim.owner}" in str(done.exception)

    def test_what_another_finished_in_the_last_moment_is_not_run_again(self, tiny, store, tmp_path, monkeypatch):
        todo, elsewhere = task(tiny, store, "er"), Store(tmp_path / "elsewhere")
        expected = to_the_end(Execution(todo, elsewhere))[0]

        def slowly(*args: Any, **notes: Any) -> Any:
            shutil.copytree(elsewhere.path(), store.path(), dirs_exist_ok=True)  # between the look and the claim
            return take(*args, **notes)

        monkeypatch.setattr("clray.execution.take", slowly)
        monkeypatch.setattr("clray.vision.training.train", lambda *_: pytest.fail("it was built"))
        execution = Execution(dataclasses.replace(todo, launch="mine"), store)
        assert execution.done
        assert execution.measurements == expected
        assert "elsewhere" in execution.ending
        assert store.claimed() == set()

    def test_who_was_out_of_reach_for_long_leaves_it_to_the_other(self, tiny, store):
        todo = task(tiny, store, "er")
        execution = Execution(dataclasses.replace(todo, launch="first"), store)
        execution.step()
        other = Execution(dataclasses.replace(todo, launch="first"), store)  # as after a failure of Ray's network
        execution._hold.renew()
        with pytest.raises(RunsElsewhere):
            execution.step()
        execution.stop()
        assert store.checkpointed() == set(), "nor does it write over what the other has saved"
        assert store.claimed() == {todo.id}
        to_the_end(other)

    def test_executions_that_left_no_checkpoint_are_known_from_their_claims(self, tiny, store):
        todo = task(tiny, store, "er")
        for launch in ("one", "two"):
            execution = Execution(dataclasses.replace(todo, launch=launch), store)
            execution._hold._over.set()  # it dies
            dead = dataclasses.replace(execution._hold.claim, processes="another boot")
            store.renew_claim(todo.id, dead.to_bytes())
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
        gone = dataclasses.replace(execution._hold.claim, born=-5)
        execution._hold._over.set()
        store.renew_claim(todo.id, gone.to_bytes())
        said = CliRunner().invoke(app, ["status", "--results", store.uri]).output
        assert "1 begun" in said
        assert f"{todo.id} er seed 0: 0%, left by {gone.owner}, which is gone" in said


def test_a_task_is_plain_data(tiny, store):
    todo = task(tiny, store, "er")
    assert Task(**json.loads(json.dumps(todo.to_dict()))) == todo


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
