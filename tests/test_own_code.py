"""Methods, benchmarks and networks from outside clray: found, run, hashed, handed to workers, refused."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clray import own_code, provenance
from clray.cli import app
from clray.errors import ClrayError, DeclarationError, StateError
from clray.execution import Execution
from clray.loading import load_sweep
from clray.own_code import OwnCodeError
from clray.planning import plan
from clray.store import Store
from clray.testing import measurements
from clray.vision.methods import METHODS
from clray.work import Task

METHOD = """
from clray.vision.methods.er_reservoir import ErReservoir


class Mine(ErReservoir):
    pass


class Other:
    pass
"""
SWEEP = """
version: 1
track: vision
benchmark: {name: rotated-mnist, tasks: 2, train_per_task: 60, test_per_task: 50, source: embedded}
model: {name: mlp}
seeds: [0, 1]
metrics: [ACC, F]
variants:
  mine: {method: METHOD, lr: 0.01, memories_per_class: 2}
  theirs: {method: er_reservoir, lr: 0.01, memories_per_class: 2}
quick: {seeds: [0]}
"""
NETWORK = """
import math

from clray.vision.networks.base import Network


class Small(Network):
    name: str
    width: int = 16

    def build(self, shape, outputs):
        from torch import nn

        from clray.vision.networks.layers import BodyAndHead

        return BodyAndHead(nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), self.width), nn.ReLU()),
                           nn.Linear(self.width, outputs))


class Named(Small):
    name: str = "small"
"""
BENCHMARK = """
from clray.vision.benchmarks.rearranged_mnist import RotatedMnist


class Turned(RotatedMnist):
    name: str
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder ``own`` in the present one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def declare(folder: Path, method: str = "./method.py:Mine", text: str = METHOD) -> Path:
    (folder / "method.py").write_text(text)
    (folder / "sweep.yaml").write_text(SWEEP.replace("METHOD", method))
    return folder / "sweep.yaml"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def digest(sweep: Path) -> str:
    return provenance.code_digest(load_sweep(sweep).cells[0].trial)


class TestFiles:
    def test_a_method_in_a_file_gives_the_numbers_of_the_one_it_is(self, place):
        sweep = declare(place)
        assert load_sweep(sweep).cells[0].trial.method == "own/method.py:Mine"
        assert measurements(sweep, "mine") == measurements(sweep, "theirs")
        assert measurements(sweep, "mine", stops=True) == measurements(sweep, "mine")

    def test_the_file_is_found_from_the_sweep_wherever_one_stands(self, place, monkeypatch, tmp_path):
        sweep = declare(place)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        trial = load_sweep(sweep).cells[0].trial
        monkeypatch.chdir(place)
        assert load_sweep("sweep.yaml").cells[0].trial.declaration == trial.declaration

    def test_a_benchmark_and_a_network(self, place):
        sweep = declare(place)
        (place / "parts.py").write_text(NETWORK + BENCHMARK)
        changes = ("model={name: './own/parts.py:Small', width: 8}", "benchmark.name=./own/parts.py:Turned")
        assert measurements(sweep, "mine", *changes, stops=True) == measurements(sweep, "mine", *changes)
        assert measurements(sweep, "mine", "benchmark.name=./own/parts.py:Turned") == measurements(sweep, "mine")

    def test_methods_of_the_other_tracks(self, place):
        text = "from clray.language.methods.lamol import Lamol\n\n\nclass Mine(Lamol):\n    pass\n"
        text += "from clray.episodes.methods.meta_seq2seq import MetaSeq2seq\n\n\nclass Meta(MetaSeq2seq):\n    pass\n"
        (place / "method.py").write_text(text)
        tasks = ("benchmark.train_per_task=20", "benchmark.test_per_task=5")
        mine = "variants.lamol-0.method=./own/method.py:Mine"
        assert measurements("lamol/two_tasks_small", "lamol-0", *tasks, mine) == measurements(
            "lamol/two_tasks_small", "lamol-0", *tasks
        )
        few, mine = "variants.meta-seq2seq.episodes=3", "variants.meta-seq2seq.method=./own/method.py:Meta"
        name = "metaseq2seq/mutual_exclusivity"
        assert measurements(name, "meta-seq2seq", few, mine) == measurements(name, "meta-seq2seq", few)

    def test_a_file_beside_is_imported_with_a_dot(self, place):
        (place / "parts").mkdir()
        (place / "parts" / "half.py").write_text("HALF = 0.5\n")
        (place / "losses.py").write_text("from .parts.half import HALF\n")
        sweep = declare(place, text="from .losses import HALF\n" + METHOD)
        assert measurements(sweep, "mine")
        names = {file.name for file in provenance.files_of(load_sweep(sweep).cells[0].trial)}
        assert {"method.py", "losses.py", "half.py", "er_reservoir.py"} <= names

    def test_two_folders_may_have_files_of_one_name(self, place, tmp_path):
        first = declare(place)
        (tmp_path / "second").mkdir()
        second = declare(tmp_path / "second", text=METHOD.replace("pass", "x = 1", 1))
        assert digest(first) != digest(second)
        assert digest(first) == digest(first)
        assert METHODS["own/method.py:Mine"] is not METHODS["second/method.py:Mine"]

    def test_two_folders_of_one_name_are_refused(self, place, tmp_path):
        load_sweep(declare(place))
        (tmp_path / "more" / "own").mkdir(parents=True)
        with pytest.raises(DeclarationError, match=r"sweep.yaml:9: variants.mine.method: two folders are named own, "):
            load_sweep(declare(tmp_path / "more" / "own"))


class TestDigest:
    def test_an_edit_makes_finished_trials_stale_and_a_comment_does_not(self, place):
        sweep = str(declare(place))
        run("sweep", sweep, "--local", "--wandb", "off")
        assert "finished" in run("plan", sweep)
        file = place / "method.py"
        file.write_text(METHOD + "\n# a comment\n")
        assert "0 trials" in run("plan", sweep).split("left to run: ")[1]
        assert "other code" not in run("plan", sweep)
        file.write_text(METHOD.replace("pass", "x = 1", 1))
        assert "2 records were made by other code" in run("plan", sweep)

    def test_an_edited_file_is_imported_anew_in_one_process(self, place):
        sweep = declare(place)
        before = digest(sweep)
        (place / "method.py").write_text(METHOD.replace("pass", "x = 1", 1))
        assert digest(sweep) != before
        assert METHODS["own/method.py:Mine"].x == 1

    def test_a_file_beside_counts_and_another_one_does_not(self, place):
        (place / "losses.py").write_text("HALF = 0.5\n")
        (place / "unused.py").write_text("x = 1\n")
        sweep = declare(place, text="from .losses import HALF\n" + METHOD)
        before = digest(sweep)
        (place / "unused.py").write_text("x = 2\n")
        assert digest(sweep) == before
        (place / "losses.py").write_text("HALF = 0.25\n")
        assert digest(sweep) != before

    def test_the_folder_s_place_does_not_count(self, place, tmp_path):
        before = digest(declare(place))
        (tmp_path / "moved").mkdir()
        assert digest(declare(place.rename(tmp_path / "moved" / "own"))) == before


class TestWorkers:
    def a_task(self, sweep: Path, tmp_path: Path) -> Task:
        from clray.planning import plan
        from clray.store import Store

        name = str(sweep)
        return plan({name: load_sweep(name)}, Store(str(tmp_path / "results")), download=False).trials[0].task()

    PROGRAM = """
import sys
from clray.execution import Execution
from clray.work import Task
from clray.store import Store
from clray.vision.methods import METHODS

execution = Execution(Task.from_json(open(sys.argv[1]).read()), Store(sys.argv[2]))
while not execution.done:
    execution.step()
print(sys.modules[METHODS[execution.trial.method].__module__].__file__)
"""

    def work(self, task: Task, tmp_path: Path) -> subprocess.CompletedProcess[str]:
        (tmp_path / "task.json").write_text(task.to_json())
        command = [sys.executable, "-c", self.PROGRAM, str(tmp_path / "task.json"), str(tmp_path / "results")]
        return subprocess.run(command, capture_output=True, text=True, cwd="/")

    def test_a_worker_uses_the_folder_where_it_has_it(self, place, tmp_path):
        done = self.work(self.a_task(declare(place), tmp_path), tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(place / "method.py")

    @pytest.mark.parametrize("left", ["nothing", "other code"])
    def test_a_worker_elsewhere_gets_the_files(self, place, tmp_path, left):
        (place / "losses.py").write_text("HALF = 0.5\n")
        sweep = declare(place, text="from .losses import HALF\n" + METHOD)
        task = self.a_task(sweep, tmp_path)
        place.rename(tmp_path / "gone")
        if left == "other code":
            place.mkdir()
            declare(place, text=METHOD.replace("pass", "x = 1"))
        done = self.work(task, tmp_path)
        assert done.returncode == 0, done.stderr
        assert not done.stdout.startswith(str(place))
        from clray.store import Store

        assert Store(str(tmp_path / "results")).read(task.id).provenance["code"] == task.code

    def test_a_package_that_a_worker_lacks_is_one_error(self, place, tmp_path, monkeypatch):
        package = tmp_path / "packages" / "mine_pkg"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "er.py").write_text(METHOD)
        monkeypatch.syspath_prepend(tmp_path / "packages")
        task = self.a_task(declare(place, "mine_pkg.er:Mine"), tmp_path)
        done = self.work(task, tmp_path)
        assert done.returncode == 1
        assert "mine_pkg.er:Mine: there is no module mine_pkg.er here: install the package" in done.stderr


def test_an_error_in_training_names_the_line(place):
    text = METHOD.replace("    pass", "    def observe(self, batch):\n        raise ValueError('not today')", 1)
    sweep = str(declare(place, text=text))
    result = CliRunner().invoke(app, ["sweep", sweep, "--local", "--only", "mine"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "ValueError: not today (own/method.py:7)" in " ".join(result.output.split())
    assert "failed last time: mine seed 0: ValueError: not today (own/method.py:7)" in run("plan", sweep)


def test_a_method_that_calls_exit_ends_its_trial_alone(place):
    text = METHOD.replace("    pass", "    def observe(self, batch):\n        raise SystemExit(3)", 1)
    sweep = str(declare(place, text=text))
    result = CliRunner().invoke(app, ["sweep", sweep, "--local", "--seeds", "0"], catch_exceptions=False)
    said = " ".join(result.output.split())
    assert "RuntimeError: the trial's code called sys.exit(3) (own/method.py:7)" in said
    assert (result.exit_code, "1 trial failed" in said) == (1, True)
    assert "theirs" in run("table", sweep), "the other variant has run"


def test_a_state_that_cannot_be_written_says_what_it_may_hold(place):
    text = METHOD.replace(
        "    pass", "    def state_dict(self):\n        return super().state_dict() | {'f': lambda: 1}", 1
    )
    sweep = declare(place, text=text)
    with pytest.raises(StateError, match=r"cannot be written: .*lambda.*; a method's state may hold numbers, texts"):
        measurements(sweep, "mine", stops=True)


def test_a_state_without_that_of_the_base_class_is_an_error_and_no_restart(place):
    text = METHOD.replace("    pass", "    def state_dict(self):\n        return {'x': 0}", 1)
    store = Store("results")
    task = plan({"own": load_sweep(declare(place, text=text))}, store, download=False).trials[0].task()
    execution = Execution(task, store)
    execution.step()
    with pytest.raises(StateError, match=r"load_state_dict cannot take what state_dict gave: .*KeyError.*super\(\)"):
        execution.stop()
    assert not store.checkpointed()


def test_a_trial_goes_on_unchanged_after_its_first_checkpoint(place):
    store, sweep = Store("results"), declare(place)
    execution = Execution(plan({"own": load_sweep(sweep)}, store, download=False).trials[0].task(), store)
    execution.step()
    execution.save()
    while not execution.done:
        execution.step()
    assert execution.measurements == measurements(sweep, "mine")


def test_a_method_that_lacks_a_part_is_told_which(place):
    text = "from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings\n\n\n"
    text += "class Mine(ReplayMethod):\n    class Settings(ReplaySettings):\n        pass\n"
    sweep = declare(place, text=text)
    stream = (
        "{name: class-incremental, dataset: mnist, source: embedded, tasks: 2, train_per_class: 20, test_per_class: 10}"
    )
    settings = "{lr: 0.01, memories: 20, method: './method.py:Mine'}"
    sweep.write_text(
        f"version: 1\ntrack: vision\nbenchmark: {stream}\nmodel: {{name: mlp}}\nseeds: [0]\nmetrics: [ACC]\n"
        f"variants:\n  mine: {settings}\n"
    )
    result = CliRunner().invoke(app, ["sweep", str(sweep), "--local"], catch_exceptions=False)
    assert result.exit_code == 1
    said = "Mine has no loss; the docstring of IncrementalMethod.loss says what it does"
    assert said in " ".join(result.output.split())
    assert said in run("plan", str(sweep))


class TestPackages:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch) -> Path:
        """A package ``lab_methods`` that can be imported, with a method in ``er.py``."""
        folder = tmp_path / "packages" / "lab_methods"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "er.py").write_text("from lab_methods.tools import TWICE\n" + METHOD)
        (folder / "tools.py").write_text("TWICE = 2\n")
        monkeypatch.syspath_prepend(tmp_path / "packages")
        yield folder
        for name in [name for name in sys.modules if name.partition(".")[0] == "lab_methods"]:
            del sys.modules[name]

    def test_a_method_of_an_installed_package(self, place, package):
        sweep = declare(place, "lab_methods.er:Mine")
        assert measurements(sweep, "mine") == measurements(sweep, "theirs")
        names = {file.name for file in provenance.files_of(load_sweep(sweep).cells[0].trial)}
        assert {"er.py", "tools.py", "er_reservoir.py"} <= names

    def test_a_method_that_a_package_lists(self, place, package, tmp_path):
        info = tmp_path / "packages" / "lab_methods-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-methods\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[clray.methods]\nlab_er = lab_methods.er:Mine\ner = lab_methods.er:Mine\nbroken = lab_methods.no:Mine\n"
        )
        own_code.listed.cache_clear()
        try:
            assert metadata.entry_points(group="clray.methods")
            sweep = declare(place, "lab_er")
            assert load_sweep(sweep).cells[0].trial.method == "lab_er"
            assert measurements(sweep, "mine") == measurements(sweep, "theirs")
            assert "lab_er" in run("list")
            assert METHODS["er"].__module__ == "clray.vision.methods.er"  # clray's own names stay clray's
            message = r"variants.mine: lab_methods.no:Mine: there is no module lab_methods.no here"
            with pytest.raises(DeclarationError, match=message):
                load_sweep(declare(place, "broken"))
            (package / "no.py").write_text("1 / 0\n")
            with pytest.raises(DeclarationError, match=r"no\.py:1: cannot be imported: ZeroDivisionError"):
                load_sweep(declare(place, "broken"))
            assert "broken" not in run("list")
        finally:
            own_code.listed.cache_clear()


REFUSED = {
    "./nothing.py:Mine": "there is no file .*nothing.py",
    "./method.py": "names no class; expected FILE.py:CLASS, such as ./method.py:Mine",
    "./method.py:Nothing": r"there is no class Nothing; allowed: Mine, Other",
    "./method.py:Other": "must be derived from Method of clray.vision.methods.base",
    "./method.py:": r"expected FILE.py:Class or package.module:Class",
    "./my-method.py:Mine": r"named with letters, digits and _ \(it is my-method.py\)",
    "no_such_package.mine:Mine": "there is no module no_such_package.mine here: install the package .* ./mine.py:Mine",
    "no such:Mine": "expected FILE.py:Class or package.module:Class",
    "./unset.py:Mine": "the class needs a class `Settings` with its hyper-parameters, derived from the settings",
    "./broken.py:Mine": r"broken.py:2: cannot be imported: ZeroDivisionError: division by zero",
    "./unread.py:Mine": r"unread.py:1: cannot be imported: SyntaxError",
    "./undotted.py:Mine": r"undotted.py:3: method lies beside this file: import it with a dot, from .method import …",
    "./deeper.py:Mine": r"undotted.py:3: method lies beside this file",
}


@pytest.mark.parametrize(("reference", "message"), REFUSED.items())
def test_what_is_refused(place, reference, message):
    declare(place)
    (place / "my-method.py").write_text(METHOD)
    (place / "broken.py").write_text("x = 1\n1 / 0\n")
    (place / "unread.py").write_text("def :\n")
    replay = "from clray.vision.methods.incremental.base import ReplayMethod"
    (place / "unset.py").write_text(f"{replay}\n\n\nclass Mine(ReplayMethod):\n    pass\n")
    (place / "undotted.py").write_text("\n\nfrom method import Mine\n")
    (place / "deeper.py").write_text("from .undotted import Mine\n")
    with pytest.raises(DeclarationError, match=rf"sweep.yaml:9: variants.mine.*{message}"):
        load_sweep(declare(place, json.dumps(reference)))


def test_a_network_whose_name_is_fixed_is_refused(place):
    (place / "parts.py").write_text(NETWORK.replace("name: str\n", 'name: __import__("typing").Literal["small"]\n'))
    sweep = declare(place)
    sweep.write_text(sweep.read_text().replace("{name: mlp}", "{name: './parts.py:Small'}"))
    with pytest.raises(ClrayError, match="the class's field must be `name: str`"):
        load_sweep(sweep)


MODULES = """
from clray.vision.benchmarks.split import SplitClasses
from clray.vision.networks.base import Network


class Narrow(Network):
    name: str

    def build(self, shape, outputs):
        from torch import nn

        from clray.vision.networks.layers import BodyAndHead

        return BodyAndHead(nn.Flatten(), nn.Linear(784, outputs - 3))


class Headless(Narrow):
    def build(self, shape, outputs):
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))


class Few(SplitClasses):
    name: str
    tasks: int = 5
    datasets = ("mnist",)
    label_classes = 5


class Many(Few):
    label_classes = 15


class Unknown(Few):
    datasets = ("mnits",)
"""


@pytest.mark.parametrize(("benchmark", "network", "message"), [
    ("class-incremental", "Narrow", "model.name: own/parts.py:Narrow gives two images an output of shape (2, 7); "
     "(2, 10) is needed, a logit for each class"),
    ("class-incremental", "Headless", "model.name: own/parts.py:Headless: its module must have a method features(x)"),
    ("Few", "small", "own/parts.py:Few: label_classes is 5, but mnist has 10 classes here"),
    ("Many", "small", "own/parts.py:Many: label_classes is 15, but mnist has 10 classes here"),
    ("Unknown", "small", "sweep.yaml:4: benchmark.name: the `datasets` of own/parts.py:Unknown hold 'mnits'; "
     "did you mean 'mnist'?"),
])  # fmt: skip
def test_parts_that_do_not_fit_the_images(place, benchmark, network, message):
    (place / "parts.py").write_text(MODULES)
    ours = benchmark == "class-incremental"
    settings = "dataset: mnist, train_per_class: 20, test_per_class: 10" if ours else "train_per_task: 20"
    sweep = place / "sweep.yaml"
    sweep.write_text(f"""version: 1
track: vision
benchmark:
  name: {benchmark if ours else f"./parts.py:{benchmark}"}
  tasks: 5
  source: embedded
  {settings.replace(", ", chr(10) + "  ")}
model: {{name: {f"./parts.py:{network}" if ours else "mlp"}}}
seeds: [0]
metrics: [ACC]
variants:
  one: {{method: {"ocl_er, memories: 10" if ours else "naive"}, lr: 0.01}}
""")
    result = CliRunner().invoke(app, ["sweep", str(sweep), "--local"])
    assert result.exit_code != 0
    said = " ".join(f"{result.output} {result.exception}".split())
    assert message in said, said


def test_a_trial_whose_folder_is_not_known_is_not_fresh(place):
    sweep = declare(place)
    trial = load_sweep(sweep).cells[0].trial
    own_code.forget()
    with pytest.raises(OwnCodeError, match="the folder own of this trial's own code is not known here"):
        METHODS[trial.method]
