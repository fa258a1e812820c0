"""``keep: [weights]``: a finished trial leaves the weights of its network, and is the same trial as without."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from test_execution import part_of_the_way, to_the_end
from typer.testing import CliRunner, Result

from clray import own_code
from clray.cli import app
from clray.errors import ClrayError, DataError, DeclarationError, StoreError
from clray.execution import Execution
from clray.garbage import find
from clray.launch import Options, run_here
from clray.loading import load_sweep
from clray.metrics import FINAL
from clray.planning import plan
from clray.selection import Selection
from clray.store import Store
from clray.vision import export
from clray.vision.networks import NETWORKS
from clray.vision.trial import draws_of, stream_of
from clray.work import Task

pytestmark = pytest.mark.usefixtures("kernels")
DOCS = Path(__file__).resolve().parents[1] / "docs" / "stores.md"
MODULES = """\
version: 1
track: vision
benchmark: {name: rotated-mnist, tasks: 2, train_per_task: 60, test_per_task: 50, heads: multi, source: embedded}
model: {name: mlp, hidden: [20, 20], dropout: 0.1}
seeds: [0, 1]
keep: [weights]
variants:
  naive: {method: naive, lr: 0.01}
"""


MINE = '{name: "./mine.py:Mine", width: 8}'
OWN = """\
import math
from clray.vision.networks.base import Network


class Mine(Network):
    name: str
    width: int = 32

    def build(self, shape, outputs):
        from torch import nn
        from clray.vision.networks.layers import BodyAndHead

        body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), self.width), nn.ReLU())
        return BodyAndHead(body, nn.Linear(self.width, outputs))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def keeping(tiny: Path) -> Path:
    """The tiny sweep, with weights."""
    file = tiny.with_name("keeping.yaml")
    file.write_text(f"{tiny.read_text()}keep: [weights]\n")
    return file


def planned(file: Path, store: Store, *variants: str, seeds: tuple[int, ...] = (0,), **how: Any) -> list[Any]:
    return plan({file.stem: load_sweep(file, Selection(only=variants, seeds=seeds, **how))}, store).trials


def clray(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def example() -> str:
    """The code in the documentation."""
    [code] = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    return code


class TestDeclared:
    def test_it_changes_no_id_and_no_declaration(self, tiny, keeping):
        plain, kept = (load_sweep(file) for file in (tiny, keeping))
        assert [cell.trial for cell in plain.cells] == [cell.trial for cell in kept.cells]
        assert {cell.keep for cell in plain.cells} == {()}
        assert {cell.keep for cell in kept.cells} == {("weights",)}
        assert {cell.keep for cell in load_sweep(keeping, Selection(quick=True, only=("er",))).cells} == {("weights",)}

    def test_as_a_flag_it_leaves_the_numbers_comparable(self, tiny):
        flag = Selection(set=("keep=[weights]",))
        sweep = load_sweep(tiny, flag)
        assert sweep.comparable
        assert (flag.changes, flag.suffix) == ((), "")
        assert {cell.keep for cell in sweep.cells} == {("weights",)}
        both = Selection(set=("keep=[weights]", "benchmark.tasks=2"))
        assert both.changes == ("--set benchmark.tasks=2",)
        assert both.suffix == Selection(set=("benchmark.tasks=2",)).suffix

    @pytest.mark.parametrize(
        ("keep", "said"),
        [
            ("[weight]", r"keeping.yaml:\d+: keep\.0: 'weight' is nothing that trials of vision keep; did you mean"),
            ("[weights, weights]", r"keeping.yaml:\d+: keep: it stands twice: weights"),
            ("weights", r"keeping.yaml:\d+: keep: expected a list"),
            ("[3]", r"keeping.yaml:\d+: keep\.0: expected text"),
        ],
    )
    def test_wrong_use_exits_with_2(self, keeping, keep, said):
        keeping.write_text(keeping.read_text().replace("keep: [weights]", f"keep: {keep}"))
        with pytest.raises(DeclarationError, match=said) as caught:
            clray("plan", keeping)
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize(("sweep", "track"), [("lamol/two_tasks_small", "language"),
                                                  ("metaseq2seq/mutual_exclusivity", "episodes")])  # fmt: skip
    def test_other_tracks_refuse_it(self, sweep, track):
        said = f"'weights' is nothing that trials of {track} keep; leave the key out"
        with pytest.raises(DeclarationError, match=said):
            load_sweep(sweep, Selection(set=("keep=[weights]",)))

    def test_a_trial_that_two_sweeps_share_is_kept_for_both(self, tiny, keeping, store):
        sweeps = {file.stem: load_sweep(file, Selection(only=("er",))) for file in (tiny, keeping)}
        assert {trial.keep for trial in plan(sweeps, store).trials} == {("weights",)}
        to_the_end(Execution(planned(tiny, store, "er")[0].task(), store))
        assert [trial.lacking for trial in plan(sweeps, store).trials] == [("weights",), ()]

    def test_a_task_takes_it_along(self, keeping, store):
        task = planned(keeping, store, "er")[0].task(rerun_lacking=True)
        assert Task.from_json(task.to_json()) == task
        assert (task.keep, task.rerun_lacking) == (("weights",), True)


class TestKept:
    def test_the_documented_lines_load_what_the_command_exports(self, keeping, store, tmp_path, monkeypatch):
        """The loaded network gives the answers that the record counts."""
        monkeypatch.chdir(tmp_path)
        modules = tmp_path / "modules.yaml"
        modules.write_text(MODULES)
        assert len(example().strip().splitlines()) == 5
        for file, variant in ((keeping, "mer"), (keeping, "independent"), (modules, "naive")):
            ran = json.loads(clray("run", file, "--variant", variant, "--json", "--results", store.path()).output)
            listed = clray("export", ran["trial"], "--results", store.path()).output.split()
            assert listed == ["weights.json", "weights.pt"]
            for name in listed:
                clray("export", ran["trial"], name, "--results", store.path())
            names: dict[str, Any] = {}
            exec(example(), names)
            self.check(names["net"].eval(), store.read(ran["trial"]))

    def check(self, net: Any, record: Any) -> None:
        from clray.vision.benchmarks import BENCHMARKS

        facts = json.loads(Path("weights.json").read_text())
        assert (facts["id"], facts["code"]) == (record.id, record.provenance["code"])
        assert (facts["variant"], facts["sweep"], facts["data"]) == (record.variant, record.sweep, record.data)
        assert facts["trial"] == record.trial.model_dump(mode="json")
        assert facts["inputs"] == {"range": [0, 1], "mean": None, "std": None}
        benchmark = BENCHMARKS[record.trial.benchmark["name"]](**record.trial.benchmark)
        stream = stream_of(record.trial, benchmark, record.data, draws_of(record.trial, benchmark, "cpu"))
        tasks = len(stream.experiences)
        last = {m.eval_task: m.value for m in record.measurements if m.trained_tasks == tasks and m.metric in FINAL}
        for task in range(tasks):
            count = len(stream.experiences[task].tests)
            x, y = stream.tests(task, 0, count)
            begin, end = facts["logits"][task]
            with torch.no_grad():
                own = net[task] if isinstance(net, torch.nn.ModuleList) else net
                right = int((own(x)[:, begin:end].argmax(1) + begin == y).sum())
            assert abs(right / count - last[task]) < 1.5 / count

    def test_the_numbers_are_the_same_with_and_without(self, tiny, keeping, tmp_path):
        ends = []
        for file in (tiny, keeping):
            there = Store(tmp_path / file.stem)
            ends.append(to_the_end(Execution(planned(file, there, "mer")[0].task(), there)))
        assert ends[0] == ends[1]

    def test_a_continued_trial_keeps_the_same_weights(self, keeping, store, tmp_path):
        elsewhere = Store(tmp_path / "elsewhere")
        [trial] = planned(keeping, store, "er")
        to_the_end(Execution(trial.task(), elsewhere))
        begun = Execution(trial.task(checkpoint_seconds=1e9), store)
        part_of_the_way(begun, 40)
        begun.stop()
        assert store.artifacts(trial.id) == []
        to_the_end(Execution(trial.task(), store))
        for name in ("weights.pt", "weights.json"):
            assert store.read_artifact(trial.id, name) == elsewhere.read_artifact(trial.id, name)

    def test_a_trial_that_diverged_keeps_none_and_lacks_none(self, keeping, store):
        [trial] = planned(keeping, store, "online", set=("variants.online.lr=1000000",))
        execution = Execution(trial.task(), store)
        to_the_end_or_divergence(execution)
        assert store.read(trial.id).status == "diverged"
        assert store.artifacts(trial.id) == []
        [again] = planned(keeping, store, "online", set=("variants.online.lr=1000000",))
        assert (again.state, again.lacking) == ("finished", ())
        with pytest.raises(ClrayError, match="it diverged, and keeps no weights"):
            clray("export", trial.id, "weights.pt", "--results", store.path())

    def test_a_file_that_cannot_be_written_is_told(self, keeping, store, monkeypatch):
        [trial] = planned(keeping, store, "online")
        execution = Execution(trial.task(), store)
        monkeypatch.setattr("clray.vision.export.weights", lambda *_: 1 / 0)
        to_the_end(execution)
        record = store.read(trial.id)
        assert record.status == "finished"
        assert record.provenance["missing_artifacts"] == {"weights": "ZeroDivisionError: division by zero"}
        with pytest.raises(ClrayError, match="its weights could not be kept: ZeroDivisionError"):
            clray("export", trial.id, "weights.pt", "--results", store.path())
        assert planned(keeping, store, "online")[0].lacking == ("weights",)


def to_the_end_or_divergence(execution: Execution) -> None:
    while not execution.done:
        execution.step()


class TestLacking:
    @pytest.fixture
    def without(self, tiny: Path, store: Store) -> Any:
        """A trial that was finished before anyone asked for its weights."""
        [trial] = planned(tiny, store, "er")
        to_the_end(Execution(trial.task(), store))
        return trial

    def test_nothing_is_run_again_unasked(self, without, keeping, store):
        at = ["--results", store.path()]
        before = Path(store.path("records", f"{without.id}.parquet")).stat().st_mtime_ns
        said = clray("plan", keeping, "--only", "er", "--seeds", "0", *at).output
        assert "1 trial finished without weights: --rerun-lacking runs them again, which makes them" in said
        assert "left to run: 0 trials" in said
        said = clray("sweep", keeping, "--only", "er", "--seeds", "0", "--local", "--wandb", "off", *at).output
        assert "1 trial finished without weights" in said
        said = clray("run", keeping, "--variant", "er", *at).output
        assert "finished without weights: --rerun-lacking runs it again for that" in said
        assert store.artifacts(without.id) == []
        assert Path(store.path("records", f"{without.id}.parquet")).stat().st_mtime_ns == before
        said = "finished without weights; `keep: \\[weights\\]` in the sweep file and --rerun-lacking make them"
        with pytest.raises(ClrayError, match=said) as caught:
            clray("export", without.id, "weights.pt", *at)
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("how", ["sweep", "run"])
    def test_rerun_lacking_makes_them(self, without, keeping, store, how):
        at = ["--results", store.path(), "--rerun-lacking"]
        before = store.read(without.id)
        flags = {
            "sweep": ["sweep", keeping, "--only", "er", "--seeds", "0", "--local", "--wandb", "off"],
            "run": ["run", keeping, "--variant", "er"],
        }
        assert "left to run: 1 trial" in clray("plan", keeping, "--only", "er", "--seeds", "0", *at).output
        clray(*flags[how], *at)
        assert store.artifacts(without.id) == ["weights.json", "weights.pt"]
        assert store.read(without.id).measurements == before.measurements
        assert store.superseded(without.id) == [], "the same code came to the same bits"
        saved = store.read(without.id).provenance["saved"]
        clray(*flags[how], *at)
        assert store.read(without.id).provenance["saved"] == saved, "it is run again once"

    def test_an_interrupted_run_goes_on(self, without, keeping, tiny, store):
        [trial] = planned(keeping, store, "er")
        task = Options().task(trial, False)
        assert task.rerun_lacking
        begun = Execution(dataclasses.replace(task, checkpoint_seconds=1e9), store)
        part_of_the_way(begun, 40)
        begun.stop()
        [again] = planned(keeping, store, "er")
        planned(tiny, store, "er")
        assert (again.state, again.lacking) == ("finished", ("weights",))
        assert trial.id in store.checkpointed(), "a plan removes what an execution left, but not this"
        assert find(store, ["checkpoints", "stale"]).garbage == []
        assert "44%" in clray("status", "--results", store.path()).output
        more = Execution(Options().task(again, False), store)
        assert more.resumed > 0.4
        to_the_end(more)
        assert store.artifacts(trial.id) == ["weights.json", "weights.pt"]
        assert (store.checkpointed(), store.running()) == (set(), set())

    def test_a_launch_waits_for_another_one_that_makes_them(self, without, keeping, store):
        [trial] = planned(keeping, store, "er")
        task = Options().task(trial, False)
        assert not task.is_done(store.read(trial.id), store)
        outcome = run_here(
            plan({"keeping": load_sweep(keeping, Selection(only=("er",), seeds=(0,)))}, store), store,
            Console(file=io.StringIO()), Options(rerun_lacking=True),
        )  # fmt: skip
        assert outcome.finished == [trial.id]
        assert task.is_done(store.read(trial.id), store)

    def test_a_stale_trial_is_no_lacking_one(self, without, keeping, store):
        record = store.read(without.id)
        store.write(dataclasses.replace(record, provenance={**record.provenance, "code": "e" * 16}))
        [trial] = planned(keeping, store, "er")
        assert (trial.state, trial.lacking) == ("stale", ())
        to_the_end(Execution(Options().task(trial, False), store))
        assert store.artifacts(trial.id) == ["weights.json", "weights.pt"]
        assert json.loads(store.read_artifact(trial.id, "weights.json"))["code"] == trial.code

    def test_weights_of_an_earlier_record_do_not_stay_beside_the_new_one(self, keeping, tiny, store):
        [trial] = planned(keeping, store, "er")
        to_the_end(Execution(trial.task(), store))
        record = store.read(trial.id)
        weights = store.read_artifact(trial.id, "weights.pt")
        Path(store.path("records", f"{trial.id}.parquet")).unlink()
        store.write(dataclasses.replace(record, provenance={**record.provenance, "code": "e" * 16}))
        [stale] = planned(tiny, store, "er")
        to_the_end(Execution(Options().task(stale, False), store))
        assert store.artifacts(trial.id) == []
        [earlier] = store.superseded(trial.id)
        assert sorted(earlier.files) == ["weights.json", "weights.pt"]
        assert store.storage.read(earlier.relative.removesuffix("parquet") + "weights.pt") == weights


class TestNetworks:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_network(self, name):
        settings = NETWORKS[name](name=name).model_dump()
        shape, outputs = ((1, 28, 28) if name in ("mlp", "small-cnn") else (3, 32, 32)), 7
        plain = {**settings, **({"pretrained": False} if "pretrained" in settings else {})}
        module = NETWORKS[name](**plain).build(shape, outputs)
        training: Any = SimpleNamespace(
            learner=SimpleNamespace(module=module),
            stream=SimpleNamespace(shape=shape, outputs=outputs),
            trial=SimpleNamespace(model=settings),
        )
        state, told = export._module(training)
        assert told["parts"] == {}
        assert told["settings"] == plain, "the published weights need not be here"
        assert told["class"] == f"{type(NETWORKS[name](**plain)).__module__}:{NETWORKS[name].__name__}"
        made = export.network({"format": 1, "network": json.loads(json.dumps(told))})
        made.load_state_dict(state)
        assert all(
            torch.equal(a, b) for a, b in zip(made.state_dict().values(), module.state_dict().values(), strict=True)
        )

    def test_one_of_the_user_s_own(self, tmp_path, store):
        folder = tmp_path / "my-network"
        folder.mkdir()
        (folder / "mine.py").write_text(OWN)
        (folder / "sweep.yaml").write_text(MODULES.replace("{name: mlp, hidden: [20, 20], dropout: 0.1}", MINE))
        [trial] = planned(folder / "sweep.yaml", store, "naive")
        to_the_end(Execution(trial.task(), store))
        facts = json.loads(store.read_artifact(trial.id, "weights.json"))
        assert facts["network"]["class"] == "my-network/mine.py:Mine"
        state = torch.load(io.BytesIO(store.read_artifact(trial.id, "weights.pt")), weights_only=True)
        export.network(facts).load_state_dict(state)
        own_code.forget()
        with pytest.raises(DataError, match=r"network\(facts, FOLDER\), with the folder of mine\.py"):
            export.network(facts)
        moved = folder.rename(tmp_path / "elsewhere")
        export.network(facts, moved).load_state_dict(state)
        with pytest.raises(own_code.OwnCodeError, match="there is no file"):
            export.network(facts, tmp_path)

    def test_a_part_that_only_its_method_makes(self):
        class Mine(torch.nn.Module):
            pass

        module = NETWORKS["mlp"](name="mlp").build((1, 4, 4), 3)
        module.head = Mine()
        training: Any = SimpleNamespace(
            learner=SimpleNamespace(module=module),
            stream=SimpleNamespace(shape=(1, 4, 4), outputs=3),
            trial=SimpleNamespace(model={"name": "mlp"}),
        )
        _, told = export._module(training)
        with pytest.raises(DataError, match=r"the part 'head' of the network is a .*Mine, which only its method makes"):
            export.network({"format": 1, "network": told})

    @pytest.mark.parametrize(
        "content",
        [
            {},
            {"format": 2},
            {"format": 1},
            {"format": 1, "network": {"settings": 3}},
            {"format": 1, "network": {"settings": {"name": "x"}, "count": None}},
        ],
    )
    def test_a_file_that_describes_no_network(self, content):
        with pytest.raises(DataError, match=r"weights\.json: "):
            export.network(content)


def test_a_store_that_cannot_be_listed_is_an_error(keeping, store):
    Path(store.path()).mkdir()
    to_the_end(Execution(planned(keeping, store, "online")[0].task(), store))
    folder = Path(store.path("artifacts"))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("a file")
    with pytest.raises(StoreError, match="artifacts: cannot be listed"):
        planned(keeping, store, "online")
