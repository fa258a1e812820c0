"""Declarations: wrong files and their errors, expansion into trials, ids, reproductions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clray.errors import DeclarationError
from clray.loading import declared_root, find_sweep, load_sweep, sweep_names
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.task_orders import RandomOrders

SWEEP = """\
# clray sweep sweep.yaml
version: 1
paper: mer
track: vision
benchmark:
  name: mnist-rotations
  tasks: 3
  train_per_task: 50
  source: embedded
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1]
resources: {cpu: 1}
variants:
  plain: {method: online, lr: 0.01}
  replay: {method: er, lr: 0.1, memories: 20, replay_batch: 5}
  gem: {method: gem, lr: 0.01, memories_per_task: 10, margin: 0.5}
quick:
  benchmark: {tasks: 2}
  seeds: [7]
  only: [plain]
"""


@pytest.fixture
def file(tmp_path) -> Any:
    """``file(old=new, …)`` writes the sweep with some of its text replaced."""

    def write(*changes: tuple[str, str], name: str = "sweep.yaml") -> Path:
        text = SWEEP
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)


class TestWrongSweeps:
    """One error each, that names the file, the line, the key and what would be right."""

    @pytest.mark.parametrize(
        ("change", "at", "key", "said"),
        [
            (("seeds:", "sedes:"), None, "sedes", ["did you mean 'seeds'?", "allowed: version, paper"]),
            (("paper: mer", "paper: mer\nspeed: fast"), None, "speed", ["not a known key"]),
            (("seeds: [0, 1]", "seeds: []"), "seeds:", "seeds", ["at least 1"]),
            (("seeds: [0, 1]", "seeds: [0, x]"), "seeds:", "seeds.1", ["expected a whole number", "'x'"]),
            (("seeds: [0, 1]", "seeds: [0, -1]"), "seeds:", "seeds.1", ["greater than or equal to 0"]),
            (("seeds: [0, 1]", "seeds: [0, 0]"), None, "seeds", ["stands twice"]),
            (("version: 1", "version: one"), "version:", "version", ["expected a whole number", "'one'"]),
            (("track: vision", "track: visoin"), None, "track", ["did you mean 'vision'?"]),
            (("cpu: 1", "cpu: 0"), "resources", "resources.cpu", ["greater than 0"]),
            (("cpu: 1", "cpus: 1"), "resources", "resources", ["did you mean 'cpu'?"]),
            (("cpu: 1", "gpu: 1.5"), "resources", "resources", ["whole number of GPUs"]),
            (("mnist-rotations", "mnist-rotation"), "name:", "benchmark.name", ["did you mean 'mnist-rotations'?"]),
            (("tasks: 3", "tasks: three"), "tasks:", "benchmark.tasks", ["expected a whole number", "'three'"]),
            (("tasks: 3", "task: 3"), "task:", "benchmark.task", ["did you mean 'tasks'?"]),
            (("  tasks: 3\n", ""), "benchmark:", "benchmark.tasks", ["missing"]),
            (("source: embedded", "source: web"), "source:", "benchmark.source", ["'files' or 'embedded'"]),
            (("name: mlp", "name: cnn"), "model:", "model.name", ["'cnn' is not a model", "mlp"]),
            (("hidden: [20, 20]", "hidden: [20, 0]"), "model:", "model.hidden.1", ["greater than or equal to 1"]),
            (("method: online", "method: onlin"), "plain:", "variants.plain.method", ["did you mean 'online'?"]),
            (("method: online, ", ""), "plain:", "variants.plain", ["a variant needs a method"]),
            (("online, lr: 0.01", "online, rate: 1"), "plain:", "variants.plain.rate", ["not a setting", "lr"]),
            (("online, lr: 0.01", "online, lr: fast"), "plain:", "variants.plain.lr", ["expected a number", "'fast'"]),
            (("online, lr: 0.01", "online, lr: -1"), "plain:", "variants.plain.lr", ["greater than 0"]),
            (("lr: 0.1, ", ""), "replay:", "variants.replay.lr", ["missing"]),
            (("memories_per_task: 10", "memories_per_task: 51"), "gem:", "variants.gem.memories_per_task",
             ["51 is more than a task has", "train_per_task is 50"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [[0, 1]]"), "task_orders", "task_orders.0",
             ["each of 0 … 2 once"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [identity, [0, 1, 1]]"), "task_orders", "task_orders.1",
             ["each of 0 … 2 once"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: {random: 0}"), "task_orders", "task_orders", ["greater"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\nevaluate: sometimes"), "evaluate", "evaluate", ["after_task"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\nengine: warp"), "engine", "engine", ["'eager' or 'fused'", "'warp'"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\nprecision: float16"), "precision", "precision", ["'float32'"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ngrid: {lr: []}"), "grid", "grid.lr", ["at least 1"]),
            (("online, lr: 0.01", "online, grid: [lr]"), "plain:", "variants.plain.grid", ["expected axes"]),
            (("online, lr: 0.01", "online, grid: {lr: 0.01}"), "plain:", "variants.plain.grid.lr", ["list of values"]),
            (("online, lr: 0.01", "online, grid: {lr: []}"), "plain:", "variants.plain.grid.lr", ["list of values"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\nmetrics: [RA, ACCC]"), None, "metrics", ["did you mean 'ACC'"]),
        ],
    )  # fmt: skip
    def test_one_error_with_its_place(self, file, change, at, key, said):
        path = file(change)
        with pytest.raises(DeclarationError) as caught:
            load_sweep(path)
        text = str(caught.value)
        assert text.startswith(str(path))
        if at:
            assert text.startswith(f"{path}:{line_of(path, at)}: "), text
        assert key.split(".")[-1] in text
        if at:
            assert f": {key}" in text
        for words in said:
            assert words in text
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize(
        ("change", "at", "key", "said"),
        [
            # Sections of a variant that are no sections, and names that are no names.
            (("lr: 0.01}", "lr: 0.01, benchmark: five}"), "plain:", "variants.plain.benchmark", ["expected settings"]),
            (("lr: 0.01}", "lr: 0.01, resources: lots}"), "plain:", "variants.plain.resources", ["such as {cpu: 1}"]),
            (("lr: 0.01}", "lr: 0.01, resources: ~}"), "plain:", "variants.plain.resources", ["it is None"]),
            (("lr: 0.01}", "lr: 0.01, model: [1]}"), "plain:", "variants.plain.model", ["it is [1]"]),
            (("method: online", "method: [a]"), "plain:", "variants.plain.method", ["expected the name of a method"]),
            (("method: online", "method: {}"), "plain:", "variants.plain.method", ["it is {}"]),
            (("name: mlp", "name: [mlp]"), "model:", "model.name", ["expected a name (it is ['mlp'])"]),
            (("name: mnist-rotations", "name: {a: 1}"), "  name:", "benchmark.name", ["expected a name"]),
            (("lr: 0.01}", "lr: 0.01, model: {name: 5}}"), "plain:", "variants.plain.model.name", ["it is 5"]),
            (("lr: 0.01}", "lr: 0.01, benchmark: {tasks: x}}"), "plain:", "variants.plain.benchmark.tasks", ["'x'"]),
            (("quick:", "grid: {benchmark: [1]}\nquick:"), "grid:", "grid.benchmark", ["expected settings", "it is 1"]),
            (("quick:", "grid: {model.hidden: [[0]]}\nquick:"), "grid:", "grid.model.hidden",
             ["greater than or equal to 1"]),
            (("quick:", "grid: {method: [[a]]}\nquick:"), "plain:", "variants.plain.method", ["it is ['a']"]),
            (("lr: 0.01}", "grid: {lr: [0.1, fast]}}"), "plain:", "variants.plain.grid.lr",
             ["expected a number", "'fast'"]),
            # Keys that are no texts.
            (("  plain:", "  no:"), "no:", "", ["the key 'no' is read as yes or no", 'put it in quotes: "no"']),
            (("  plain:", "  on:"), "  on:", "", ['put it in quotes: "on"']),
            (("  plain:", "  1:"), "  1:", "", ['put it in quotes: "1"']),
            (("  plain:", "  ? [a]\n  :"), "? [a]", "", ["a list stands where a key is expected"]),
            (("lr: 0.01}", "lr: 0.01, grid: {1: [2]}}"), "plain:", "", ["the key '1' is read as a whole number"]),
            # Numbers outside sense.
            (("lr: 0.01}", "lr: .inf}"), "plain:", "", ["'.inf' is not a finite number"]),
            (("lr: 0.01}", "lr: 1e400}"), "plain:", "", ["'1e400' is not a finite number"]),
            (("lr: 0.01}", "lr: inf}"), "plain:", "variants.plain.lr", ["(it is 'inf')"]),
            (("lr: 0.01}", "lr: 'nan'}"), "plain:", "variants.plain.lr", ["(it is 'nan')"]),
            (("lr: 0.01}", "lr: true}"), "plain:", "variants.plain.lr", ["expected a number (it is True)"]),
            (("lr: 0.01}", "grid: {lr: [0.1, true]}}"), "plain:", "variants.plain.grid.lr", ["expected a number"]),
            (("version: 1", "version: true"), "version:", "version", ["expected a number (it is True)"]),
            (("version: 1", f"version: {10**30}"), "version:", "version", ["at most 64 bits"]),
            (("seeds: [0, 1]", "seeds: [0, yes]"), "seeds:", "seeds.1", ["expected a number"]),
            (("seeds: [0, 1]", f"seeds: [0, {2**32}]"), "seeds:", "seeds.1", ["less than 4294967296"]),
            (("seeds: [0, 1]", f"seeds: [{10**30}]"), "seeds:", "seeds.0", ["less than 4294967296"]),
            (("cpu: 1", "cpu: .inf"), "resources:", "", ["not a finite number"]),
            (("cpu: 1", "cpu: inf"), "resources:", "resources.cpu", ["finite number"]),
            (("cpu: 1", "cpu: true"), "resources:", "resources.cpu", ["expected a number (it is True)"]),
            (("cpu: 1", "cpu: 1e300"), "resources:", "resources.cpu", ["less than or equal to 10000"]),
            (("cpu: 1", "gpu: 1e-9"), "resources:", "resources", ["gpu", "steps of 0.0001"]),
            (("lr: 0.01}", "lr: 0.01, resources: {gpu: 1.5}}"), "plain:", "variants.plain.resources",
             ["whole number of GPUs"]),
            (("lr: 0.01}", "lr: 0.01, resources: {cpu: inf}}"), "plain:", "variants.plain.resources.cpu",
             ["finite number"]),
            # What refers to nothing.
            (("paper: mer", "paper: merr"), "paper:", "paper",
             ["'merr' is not in papers.yaml; did you mean 'mer'?", "leave the key out"]),
            # What is empty or twice.
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: []"), "task_orders", "task_orders", ["at least 1"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\nmetrics: [RA, RA]"), "metrics", "metrics",
             ["a metric stands twice: RA"]),
            (("quick:", "grid: {lr: [0.1, 0.1]}\nquick:"), "grid:", "grid.lr", ["a value stands twice: 0.1"]),
            (("quick:", "grid: {lr: [1, 1.0]}\nquick:"), "grid:", "grid.lr", ["a value stands twice"]),
            (("lr: 0.01}", "grid: {lr: [0.1, 0.1]}}"), "plain:", "variants.plain.grid.lr", ["a value stands twice"]),
            (("lr: 0.01}", "grid: {lr: [0.1, '0.1']}}"), "plain:", "variants.plain.grid.lr",
             ["two values have one name, '0.1'"]),
            (("lr: 0.01}", "grid: {model: [{hidden: [3]}], model.hidden: [[4], [5]]}}"), "plain:",
             "variants.plain.grid.model.hidden", ["the axis 'model' sets it already"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [[2, 1, 0], [2, 1, 0]]"), "task_orders", "task_orders.1",
             ["the same order as number 1"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [identity, [0, 1, 2]]"), "task_orders", "task_orders.1",
             ["the same order as number 1"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [identity, identity]"), "task_orders", "task_orders.1",
             ["the same order as number 1"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: {random: 7}"), "task_orders", "task_orders.random",
             ["3 tasks have no more than 6 different orders"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: every"), "task_orders", "task_orders",
             ["'all'"]),
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [[true, 0, 2]]"), "task_orders", "task_orders.0.0",
             ["expected a number"]),
            # Too much.
            (("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: {random: 3000000}"), "task_orders", "task_orders.random",
             ["less than or equal to 100000"]),
            (("seeds: [0, 1]", f"seeds: {list(range(20_000))}\ntask_orders: [identity, [2, 1, 0]]"), None, "",
             ["this sweep has 120,000 trials: 3 variants",
              "× 2 task orders × 20,000 seeds; allowed: at most 100,000"]),
            (("quick:", f"grid: {{a: {list(range(300))}, b: {list(range(300))}}}\nquick:"), None, "",
             ["540,000 trials: 270,000 variants and points of their grids"]),
            (("lr: 0.01}", f"lr: {'9' * 5000}}}"), "plain:", "", ["is not a whole number"]),
            (("quick:", f"grid: {{{'.'.join('a' * 50)}: [1]}}\nquick:"), "grid:", "grid",
             ["an axis has at most 40 keys"]),
            # Names.
            (("  plain:", f"  {'a' * 1000}:"), "aaa", "variants.aaa", ["1,000 characters, more than 200, in the name"]),
            (("  plain:", '  "a\\nb":'), "nb", "variants",
             ["the character '\\n' is not allowed in the name of a variant"]),
            (("  plain:", '  "a\\0b":'), "0b", "", ["the control character U+0000"]),
            (("  plain:", '  "":'), '"":', "variants", ["no letters"]),
            (("  plain:", "  a/b:"), "a/b:", "variants.a/b", ["the character '/' is not allowed"]),
            (("  plain:", "  plain@lr=0.1:"), "@lr", "variants.plain@lr=0.1",
             ["'@' is not allowed, which makes the names of grid"]),
            (("lr: 0.01}", f"grid: {{lr: [0.1, {'a' * 1200}]}}}}"), "plain:", "variants.plain.grid",
             ["more than 1,000 characters"]),
            (("title: a", f"title: {'a' * 501}"), "title:", "title", ["at most 500"]),
            # The quick form, whether it is asked for or not.
            (("only: [plain]", "only: plain"), "only:", "quick.only", ["expected a list of variants", "it is 'plain'"]),
            (("only: [plain]", "only: []"), "only:", "quick.only", ["expected a list of variants"]),
            (("only: [plain]", "only: ~"), "only:", "quick.only", ["expected a list of variants"]),
            (("seeds: [7]", "sedes: [7]"), "sedes", "quick.sedes", ["did you mean 'seeds'?"]),
            (("seeds: [7]", "seeds: [7, 7]"), "seeds: [7", "quick.seeds", ["stands twice: 7"]),
            (("seeds: [7]", "seeds: [x]"), "seeds: [x", "quick.seeds.0", ["expected a whole number"]),
        ],
        ids=lambda value: value[1][:40] if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_nonsense_is_one_error_with_its_place(self, file, change, at, key, said):
        path = file(("paper: mer", "paper: mer\ntitle: a"), change)
        with pytest.raises(DeclarationError) as caught:
            load_sweep(path)
        text = str(caught.value)
        assert text.startswith(f"{path}:{line_of(path, at)}: {key}" if at else f"{path}: "), text
        assert all(words in text for words in said), text
        assert text.count("\n") == 0 or "task_orders" in text
        assert len(text) < 3000

    def test_orders_where_a_track_has_none(self, tmp_path):
        path = tmp_path / "sweep.yaml"
        path.write_text(
            "version: 1\ntrack: episodes\nbenchmark: {name: mutual_exclusivity}\nseeds: [0]\n"
            "variants: {a: {method: meta_seq2seq}}\ntask_orders: [[0, 1]]\n"
        )
        with pytest.raises(DeclarationError, match=r"sweep.yaml:6: task_orders: .*no (tasks|order of tasks)"):
            load_sweep(path)

    def test_what_a_flag_changed_is_named_by_the_flag(self, file):
        for flags, said in (
            (
                Selection(set=("variants.plain.lr=fast",)),
                "--set variants.plain.lr=fast: variants.plain.lr: expected",
            ),
            (
                Selection(set=("variants.plain={method: online, lr: -1}",)),
                "lr: -1}: variants.plain.lr: expected",
            ),
            (Selection(set=("seeds=[1, 1]",)), "--set seeds=[1, 1]: seeds: a seed stands twice: 1"),
            (Selection(seeds=(1, 1)), "--seeds 1,1: seeds: a seed stands twice: 1"),
            (Selection(seeds=(2**32,)), "--seeds 4294967296: seeds.0: expected a number less than"),
            (
                Selection(set=("benchmark.tasks=x",)),
                "--set benchmark.tasks=x: benchmark.tasks: expected a whole number",
            ),
            (Selection(set=("grid.lr=[1, 1]",)), "--set grid.lr=[1, 1]: grid.lr: a value stands twice"),
            (Selection(set=("grid={benchmark: [1]}",)), "[1]}: grid.benchmark: expected settings"),
            (Selection(set=("task_orders={random: 7}",)), "7}: task_orders.random: 3 tasks have no more than 6"),
            (Selection(set=("seeds=[1]", "seeds=[2, 2]")), "--set seeds=[2, 2]: seeds"),
            (Selection(quick=True, only=("nosuch",)), "--only nosuch: no such variant"),
        ):
            with pytest.raises(DeclarationError) as caught:
                load_sweep(file(), flags)
            assert said in str(caught.value), str(caught.value)

    def test_a_quick_form_that_keeps_what_is_not_there(self, file):
        path = file(("only: [plain]", "only: [plane]"))
        for selection in (Selection(quick=True), Selection(), Selection(only=("gem",))):
            with pytest.raises(
                DeclarationError, match=rf"yaml:{line_of(path, 'only:')}: quick.only: 'plane': no such variant"
            ):
                load_sweep(path, selection)

    def test_a_sweep_of_no_paper(self, file):
        sweep = load_sweep(file(("paper: mer\n", "")))
        assert sweep.paper == ""
        assert [c.trial.declaration for c in sweep.cells] == [c.trial.declaration for c in load_sweep(file()).cells]

    @pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "~nobody/x", "/", ".", "nosuch/", "\x1b[31m"])
    def test_a_name_that_is_no_file(self, name):
        for load in (load_sweep, load_reproduction):
            with pytest.raises(DeclarationError) as caught:
                load(name)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 3000

    def test_all_mistakes_of_the_frame_at_once(self, file):
        path = file(("version: 1", "version: one"), ("cpu: 1", "cpu: -1"))
        with pytest.raises(DeclarationError) as caught:
            load_sweep(path)
        assert len(str(caught.value).splitlines()) == 2

    def test_a_key_twice(self, file):
        path = file(("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]"))
        with pytest.raises(DeclarationError) as caught:
            load_sweep(path)
        place = f"{path}:{line_of(path, 'seeds: [2]')}"
        assert str(caught.value) == f"{place}: not valid YAML: the key 'seeds' stands twice"

    def test_a_key_twice_inside_a_variant(self, file):
        path = file(("lr: 0.01}", "lr: 0.01, lr: 0.02}"))
        with pytest.raises(DeclarationError, match=rf"sweep.yaml:{line_of(path, 'plain:')}: .*'lr' stands twice"):
            load_sweep(path)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"a: [1", "not valid YAML"),
            (b"- a\n- b\n", "expected a mapping"),
            (b"", "expected a mapping"),
            (b"\xff\xfe\x00", "cannot be read"),
        ],
    )
    def test_what_is_no_declaration(self, tmp_path, content, said):
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(DeclarationError, match=said) as caught:
            load_sweep(path)
        assert str(caught.value).startswith(str(path))

    def test_no_such_sweep_names_those_there_are(self):
        with pytest.raises(DeclarationError, match=r"did you mean 'mer/rotations'.*mer/permutations"):
            load_sweep("mer/rotation")


class TestSelections:
    def test_set_changes_a_key_and_reads_yaml(self, file):
        sweep = load_sweep(file(), Selection(set=("benchmark.tasks=2", "variants.plain.lr=1e-3", "seeds=[5]")))
        assert {c.trial.benchmark["tasks"] for c in sweep.cells} == {2}
        assert sweep.cells[0].trial.hyperparameters == {"lr": 0.001}
        assert [c.trial.seed for c in sweep.cells] == [5, 5, 5]
        assert not sweep.comparable

    @pytest.mark.parametrize(
        ("item", "said"),
        [
            ("benchmark.tasks", "expected KEY=VALUE"),
            ("=3", "expected KEY=VALUE"),
            ("benchmark..tasks=3", "expected KEY=VALUE"),
            ("benchmrk.tasks=3", "did you mean 'benchmark'?"),
            ("variants.plane.lr=3", "did you mean 'plain'?"),
            ("seeds=[1", "not valid YAML"),
            ("model={no: 1}", "--set model={no: 1}: the key 'no' is read as yes or no"),
            ("variants.plain.lr=.inf", "--set variants.plain.lr=.inf: '.inf' is not a finite number"),
            ("variants.plain.lr=inf", "--set variants.plain.lr=inf: variants.plain.lr: "),
            ("variants.plain.lr=true", "--set variants.plain.lr=true: variants.plain.lr: expected a number"),
            ("title=" + "[" * 3000, "more than 40 times"),
            ("title=&a [*a]", "*a is inside the value that it names"),
            ("benchmark." + "a." * 3000 + "b=1", "3002 keys; allowed: at most 40"),
            ("quick.seeds=[1]", "set the key itself"),
            ("benchmark=5", "--set benchmark=5: benchmark: expected keys with values"),
            ("variants=5", "--set variants=5: variants: "),
            ("version.x=1", "'version' holds no keys"),
            ("benchmark.tasks=many", "expected a whole number"),
            ("benchmark.colour=red", "colour"),
            ("variants.plain.beta=1", "not a setting"),
        ],
    )
    def test_a_wrong_set_is_one_error(self, file, item, said):
        with pytest.raises(DeclarationError) as caught:
            load_sweep(file(), Selection(set=(item,)))
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("orders", "said"),
        [
            ("{random: -1}", "task_orders.random: expected a number greater than or equal to 1 (it is -1)"),
            ("{rndom: 2}", "task_orders: 'rndom' is not a known key; did you mean 'random'? allowed: random, seed"),
            ("3", "task_orders: expected keys with values, or a list, or 'all' (it is 3)"),
            ("[[x, 0]]", "task_orders.0: "),
        ],
    )
    def test_of_a_value_of_several_types_the_mistake_in_the_one_that_was_meant_is_told(self, file, orders, said):
        path = file(("quick:", f"task_orders: {orders}\nquick:"))
        with pytest.raises(DeclarationError) as caught:
            load_sweep(path)
        assert f"{path}:{line_of(path, 'task_orders')}: {said}" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_only_keeps_the_named_variants(self, file):
        sweep = load_sweep(file(), Selection(only=("gem", "plain")))
        assert [c.variant for c in sweep.cells] == ["plain", "plain", "gem", "gem"]
        assert sweep.comparable

    @pytest.mark.parametrize(
        ("pattern", "variants"),
        [
            ("g*", {"gem@lr=0.1", "gem@lr=0.2"}),
            ("*p*@lr=0.2", {"plain@lr=0.2", "replay@lr=0.2"}),
            ("?em@lr=0.1", {"gem@lr=0.1"}),
        ],
    )
    def test_only_takes_patterns(self, file, pattern, variants):
        path = file(("quick:", "grid: {lr: [0.1, 0.2]}\nquick:"))
        assert {c.variant for c in load_sweep(path, Selection(only=(pattern,))).cells} == variants

    def test_a_variant_whose_name_looks_like_a_pattern_stands_for_itself(self, file):
        path = file(("  plain:", "  p*:"), ("only: [plain]", "only: ['p*']"), ("  replay:", "  pre[1]:"))
        assert {c.variant for c in load_sweep(path, Selection(only=("p*",))).cells} == {"p*"}
        assert {c.variant for c in load_sweep(path, Selection(only=("p*]",))).cells} == {"pre[1]"}

    def test_a_pattern_that_fits_nothing_is_refused(self, file):
        with pytest.raises(DeclarationError, match=r"--only x\*: no such variant; allowed: plain"):
            load_sweep(file(), Selection(only=("x*",)))

    def test_a_wrong_only_lists_no_points_of_grids(self, file):
        with pytest.raises(DeclarationError) as caught:
            load_sweep(file(("quick:", "grid: {lr: [0.1, 0.2]}\nquick:")), Selection(only=("plane",)))
        assert "@" not in str(caught.value)

    def test_a_wrong_only_names_the_variants(self, file):
        with pytest.raises(DeclarationError, match=r"--only plane: no such variant; did you mean 'plain'.*replay"):
            load_sweep(file(), Selection(only=("plane",)))

    def test_only_finds_grid_points_by_variant_and_by_name(self, file):
        path = file(("quick:", "grid: {lr: [0.1, 0.2]}\nquick:"))
        assert {c.variant for c in load_sweep(path, Selection(only=("gem",))).cells} == {"gem@lr=0.1", "gem@lr=0.2"}
        assert {c.variant for c in load_sweep(path, Selection(only=("gem@lr=0.2",))).cells} == {"gem@lr=0.2"}

    def test_quick_is_as_declared(self, file):
        sweep = load_sweep(file(), Selection(quick=True))
        assert [(c.variant, c.trial.seed, c.trial.benchmark["tasks"]) for c in sweep.cells] == [("plain", 7, 2)]
        assert not sweep.comparable
        assert [c.variant for c in load_sweep(file(), Selection(quick=True, only=("gem",))).cells] == ["gem"]

    def test_no_quick_form_is_an_error(self, file):
        path = file()
        path.write_text(path.read_text().partition("quick:")[0])
        with pytest.raises(DeclarationError, match="--quick: this sweep declares no quick form"):
            load_sweep(path, Selection(quick=True))

    def test_seeds_replace_the_declared_ones_and_stay_comparable(self, file):
        sweep = load_sweep(file(), Selection(seeds=(3,)))
        assert {c.trial.seed for c in sweep.cells} == {3}
        assert sweep.comparable

    def test_files_of_other_selections_have_other_names(self):
        selections = [
            Selection(), Selection(quick=True), Selection(seeds=(1,)), Selection(only=("a",)), Selection(set=("a=1",)),
            Selection(quick=True, seeds=(1,)),
        ]  # fmt: skip
        assert len({s.suffix for s in selections}) == len(selections)
        assert Selection().suffix == ""

    def test_files_of_the_same_trials_have_one_name(self):
        assert Selection(set=("resources.cpu=2",)).suffix == ""
        assert Selection(set=("variants.er.resources.cpu=2", "a=1")).suffix == Selection(set=("a=1",)).suffix
        assert Selection(seeds=(0, 1), only=("b", "a")).suffix == Selection(seeds=(1, 0), only=("a", "b")).suffix
        assert Selection(set=("a=1", "a=2")).suffix != Selection(set=("a=2", "a=1")).suffix, "the last one counts"


class TestExpansion:
    def test_variants_times_orders_times_seeds(self, file):
        sweep = load_sweep(file(("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [identity, [2, 0, 1]]")))
        assert len(sweep.cells) == 3 * 2 * 2
        plain = [(c.trial.task_order, c.trial.seed) for c in sweep.cells if c.variant == "plain"]
        assert plain == [(None, 0), (None, 1), ([2, 0, 1], 0), ([2, 0, 1], 1)]

    def test_a_grid_is_crossed_with_every_variant(self, file):
        path = file(("quick:", "grid: {lr: [0.1, 0.2], resources: [{cpu: 1}, {cpu: 2}, {cpu: 3}]}\nquick:"))
        sweep = load_sweep(path)
        assert len(sweep.cells) == 3 * 2 * 3 * 2
        assert len({c.variant for c in sweep.cells}) == 18
        assert sorted({c.trial.hyperparameters["lr"] for c in sweep.cells}) == [0.1, 0.2]

    def test_a_variant_may_have_a_grid_of_its_own_the_last_axis_fastest(self, file):
        path = file(("online, lr: 0.01", "online, grid: {lr: [0.2, 0.1], model.hidden: [[7, 7], [8, 8]]}"))
        sweep = load_sweep(path)
        points = [(c.trial.hyperparameters["lr"], c.trial.model["hidden"]) for c in sweep.cells if "plain" in c.variant]
        assert points[::2] == [(0.2, [7, 7]), (0.2, [8, 8]), (0.1, [7, 7]), (0.1, [8, 8])]
        assert sweep.cells[0].variant == "plain@lr=0.2@model.hidden=[7, 7]"
        assert {c.variant for c in sweep.cells[8:]} == {"replay", "gem"}
        only = load_sweep(path, Selection(only=("plain",)))
        assert len(only.cells) == 8

    def test_both_grids_are_crossed(self, file):
        changed = file(
            ("online, lr: 0.01", "online, grid: {lr: [0.2, 0.1]}"),
            ("quick:", "grid: {model.hidden: [[7, 7], [8, 8]]}\nquick:"),
        )
        assert len(load_sweep(changed).cells) == (2 * 2 + 2 + 2) * 2

    def test_an_axis_stands_in_one_grid(self, file):
        changed = file(("online, lr: 0.01", "online, grid: {lr: [0.2]}"), ("quick:", "grid: {lr: [0.1]}\nquick:"))
        with pytest.raises(DeclarationError, match=r"variants.plain.grid.lr: the sweep's own grid has this axis"):
            load_sweep(changed)

    def test_setting_one_of_two_grids_that_are_one_in_the_file(self, file):
        changed = file(
            ("online, lr: 0.01", "online, grid: &axes {lr: [0.2, 0.1]}"),
            ("margin: 0.5", "margin: 0.5, grid: *axes"),
        )
        sweep = load_sweep(changed, Selection(set=("variants.plain.grid.lr=[0.3]",)))
        found = {c.variant for c in sweep.cells}
        assert found == {"plain@lr=0.3", "replay", "gem@lr=0.2", "gem@lr=0.1"}

    def test_random_orders_differ_from_each_other(self, file):
        for seed in range(5):
            text = f"seeds: [0]\ntask_orders: {{random: 6, seed: {seed}}}"
            orders = [tuple(c.trial.task_order) for c in load_sweep(file(("seeds: [0, 1]", text))).cells]
            assert len(set(orders)) == 6

    def test_random_orders_are_drawn_as_ever(self, file):
        """Trials' ids hang on these: an order is drawn again only where it was drawn before."""
        rng = np.random.default_rng(np.random.SeedSequence(3))
        assert RandomOrders(random=5, seed=3).draw(8) == [rng.permutation(8).tolist() for _ in range(5)]

    def test_all_orders(self, file):
        sweep = load_sweep(file(("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: all")))
        own = load_sweep(file(("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [identity, [2, 1, 0]]")))
        plain = [c.trial.task_order for c in sweep.cells if c.variant == "plain" and c.trial.seed == 1]
        assert plain == [None, [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        assert {c.trial.declaration for c in own.cells} < {c.trial.declaration for c in sweep.cells}

    @pytest.mark.parametrize(
        ("tasks", "said"),
        [
            (9, r"task_orders: all: plain has 9 tasks; allowed: at most 8, or \{random: N\}"),
            (
                8,
                "task_orders: all: 8 tasks have 40,320 orders, and this sweep 241,920 trials; allowed: at most 100,000",
            ),
        ],
    )
    def test_too_many_tasks_for_all_orders(self, file, tasks, said):
        changed = file(("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: all"), ("tasks: 3", f"tasks: {tasks}"))
        with pytest.raises(DeclarationError, match=said):
            _ = load_sweep(changed).cells

    def test_random_orders_are_permutations_from_their_seed(self, file):
        def orders(seed: int) -> list[list[int]]:
            text = f"seeds: [0]\ntask_orders: {{random: 6, seed: {seed}}}"
            sweep = load_sweep(file(("seeds: [0, 1]", text), ("tasks: 3", "tasks: 8")))
            return [c.trial.task_order for c in sweep.cells if c.variant == "plain"]

        assert all(sorted(order) == list(range(8)) for order in orders(0))
        assert len({tuple(order) for order in orders(0)}) == 6
        assert orders(0) == orders(0) != orders(1)

    def test_a_variant_may_change_benchmark_model_and_resources(self, file):
        changed = "online, lr: 0.01, benchmark: {tasks: 2}, model: {hidden: [7, 7]}, resources: {cpu: 2}"
        sweep = load_sweep(file(("online, lr: 0.01", changed)))
        plain, gem = sweep.cells[0], sweep.cells[-1]
        assert (plain.trial.benchmark["tasks"], gem.trial.benchmark["tasks"]) == (2, 3)
        assert (plain.trial.model["hidden"], gem.trial.model["hidden"]) == ([7, 7], [20, 20])
        assert (plain.resources.cpu, gem.resources.cpu) == (2, 1)
        assert plain.trial.benchmark["train_per_task"] == 50

    def test_defaults_are_written_out(self, file):
        trial = load_sweep(file()).cells[2].trial
        assert trial.hyperparameters == {"algorithm": 4, "lr": 0.1, "memories": 20, "replay_batch": 5}
        assert trial.benchmark["last_test_example"] == "skipped"

    @pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.0e-3", "+1e-3", ".1e-2"])
    def test_numbers_are_numbers(self, file, text):
        assert load_sweep(file(("lr: 0.01}", f"lr: {text}}}"))).cells[0].trial.hyperparameters["lr"] == 0.001

    @pytest.mark.parametrize("name", sweep_names())
    def test_the_sweeps_that_ship(self, name):
        sweep = load_sweep(name)
        assert sweep.name == name
        assert len({c.trial.declaration for c in sweep.cells}) == len(sweep.cells)
        first = (declared_root() / "sweeps" / f"{name}.yaml").read_text().splitlines()[0]
        assert first == f"# clray sweep {name}"
        assert load_sweep(name, Selection(quick=True)).cells


FIRST_ID = "4e254b3dae08adf8"
"""The id of the first trial of SWEEP, on data with the fingerprint ``fingerprint``."""


def ids(path: Path) -> list[str]:
    return [cell.trial.id("fingerprint") for cell in load_sweep(path).cells]


class TestIds:
    @pytest.mark.parametrize(
        "change",
        [
            ("version: 1", "version: 2"),
            ("tasks: 3", "tasks: 4"),
            ("train_per_task: 50", "train_per_task: 51"),
            ("name: mnist-rotations", "name: mnist-permutations"),
            ("source: embedded", "source: embedded\n  seed: 1"),
            ("source: embedded", "source: embedded\n  angles: [1, 2, 3]"),
            ("source: embedded", "source: embedded\n  last_test_example: scored"),
            ("hidden: [20, 20]", "hidden: [20, 21]"),
            ("seeds: [0, 1]", "seeds: [2, 3]"),
            ("seeds: [0, 1]", "seeds: [0, 1]\nevaluate: 10"),
            ("seeds: [0, 1]", "seeds: [0, 1]\nrandomness: official"),
            ("seeds: [0, 1]", "seeds: [0, 1]\nengine: eager"),
            ("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: [[1, 0, 2]]"),
        ],
        ids=lambda change: change[1].split("\n")[-1].strip(),
    )
    def test_every_setting_that_changes_numbers_changes_them(self, file, change):
        assert not set(ids(file())) & set(ids(file(change, name="other.yaml")))

    @pytest.mark.parametrize(
        "change",
        [("lr: 0.01}", "lr: 0.02}"), ("memories: 20", "memories: 21"), ("replay_batch: 5", "replay_batch: 6"),
         ("memories_per_task: 10", "memories_per_task: 11"), ("margin: 0.5", "margin: 0.6"),
         ("method: er,", "method: er, algorithm: 5,")],
    )  # fmt: skip
    def test_a_hyperparameter_changes_its_variants_alone(self, file, change):
        before, after = ids(file()), ids(file(change, name="other.yaml"))
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 2

    @pytest.mark.parametrize(
        "change",
        [
            ("cpu: 1", "cpu: 3, gpu: 0.5, pack: 4"),
            ("paper: mer", "paper: mer\ntitle: another title"),
            ("seeds: [0, 1]", "seeds: [0, 1]  # a comment"),
            ("  plain:", "  another_name:"),
            ("method: er, lr: 0.1, memories: 20", "memories: 20, lr: 0.1, method: er, algorithm: 4"),
            ("model: {name: mlp, hidden: [20, 20]}", "model: {hidden: [20, 20]}"),
            ("lr: 0.01}", "lr: 1e-2}"),
            ("only: [plain]", "only: [gem]"),
            ("seeds: [0, 1]", "seeds: [0, 1]\nmetrics: [ACC, F]"),
        ],
        ids=lambda change: change[1],
    )
    def test_nothing_else_does(self, file, change):
        changed = file(change, name="other.yaml")
        if "another_name" in change[1]:
            changed.write_text(changed.read_text().replace("[plain]", "[another_name]"))
        assert ids(file()) == ids(changed)

    def test_key_order_does_not(self, file, tmp_path):
        data = yaml.safe_load(SWEEP)
        turned = tmp_path / "turned.yaml"
        data["benchmark"] = dict(reversed(data["benchmark"].items()))
        turned.write_text(yaml.safe_dump(dict(reversed(data.items())), sort_keys=False))
        assert ids(file()) == ids(turned)

    def test_the_data_does(self, file):
        trial = load_sweep(file()).cells[0].trial
        assert trial.id("a") != trial.id("b")
        assert len(trial.id("a")) == 16

    def test_an_id_is_for_ever(self, file):
        """A change here would orphan every record that was ever made."""
        assert ids(file())[0] == FIRST_ID


REPRODUCTION = """\
version: 1
paper: mer
title: A test
runs: 5
spread: sd
known: recalled
margins: {RA: {points: 1.0, reason: because it is a test}}
tables:
  - title: One
    sweep: mer/rotations
    source: Table 1
    metrics: [RA, LA]
    rows:
      - {label: Online, variant: online, claims: {RA: 53.38 ± 1.53, LA: {mean: 58.82, runs: 3, kind: sem}}}
      - {label: EWC, variant: ewc, claims: {RA: "−57.5 ± ?", LA: 61}}
"""


class TestReproductions:
    def load(self, tmp_path: Path, *changes: tuple[str, str]):
        text = REPRODUCTION
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "test.yaml"
        path.write_text(text, encoding="utf-8")
        return load_reproduction(path)

    def test_claims_are_read_and_filled_in(self, tmp_path):
        found = self.load(tmp_path)
        table = found.tables[0]
        first = found.claim(table, table.rows[0], "RA")
        assert (first.mean, first.spread, first.kind, first.runs, first.known, first.source) == (
            53.38, 1.53, "sd", 5, "recalled", "Table 1",
        )  # fmt: skip
        second = found.claim(table, table.rows[0], "LA")
        assert (second.mean, second.spread, second.kind, second.runs) == (58.82, None, "sem", 3)
        third, fourth = (found.claim(table, table.rows[1], metric) for metric in ("RA", "LA"))
        assert (third.mean, third.spread, fourth.mean) == (-57.5, None, 61)
        assert found.claim(table, table.rows[1], "BTI") is None

    def test_a_row_may_say_more_exactly_where_its_numbers_stand(self, tmp_path):
        found = self.load(tmp_path, ("label: Online,", "label: Online, source: line 25,"))
        table = found.tables[0]
        sources = [found.claim(table, row, "RA").source for row in table.rows]
        assert sources == ["line 25", "Table 1"]

    def test_its_sweeps_hold_the_named_variants(self, tmp_path):
        sweeps = self.load(tmp_path).sweeps()
        assert {c.variant for c in sweeps["mer/rotations"].cells} == {"online", "ewc"}
        only = self.load(tmp_path).sweeps(Selection(only=("ewc",)))
        assert {c.variant for c in only["mer/rotations"].cells} == {"ewc"}
        only = self.load(tmp_path).sweeps(Selection(only=("e?c",)))
        assert {c.variant for c in only["mer/rotations"].cells} == {"ewc"}

    @pytest.mark.parametrize(
        ("change", "at", "said"),
        [
            (("53.38 ± 1.53", "about 50"), "Online", "expected a number, 'MEAN ± SPREAD'"),
            (("metrics: [RA, LA]", "metrics: [RA, LAA]"), "title: One", "did you mean 'LA'"),
            (("spread: sd", "spread: std"), "spread:", "'sem'"),
            (("known: recalled", "known: rumour"), "known:", "'second-hand'"),
            (("points: 1.0", "points: 0"), "margins:", "greater than 0"),
            (("title: A test", "titel: A test"), None, "did you mean 'title'"),
            (("label: EWC, ", ""), "variant: ewc", "missing"),
            (("paper: mer", "paper: nosuch"), "paper:", "'nosuch' is not in papers.yaml; allowed: mer"),
            (("sweep: mer/rotations", "sweep: mer/rotation"), "sweep:", "did you mean 'mer/rotations'"),
            (("sweep: mer/rotations", "sweep: /"), "sweep:", "it is a folder"),
            (("runs: 5", "runs: true"), "runs:", "expected a number (it is True)"),
            (("mean: 58.82", "mean: .inf"), "label: Online", "not a finite number"),
        ],
    )
    def test_wrong_ones_name_the_place(self, tmp_path, change, at, said):
        with pytest.raises(DeclarationError) as caught:
            self.load(tmp_path, change)
        path = tmp_path / "test.yaml"
        text = str(caught.value)
        assert text.startswith(f"{path}:{line_of(path, at)}: " if at else str(path)), text
        assert said in text

    def test_a_variant_that_its_sweep_has_not(self, tmp_path):
        wrong = self.load(tmp_path, ("variant: online", "variant: onlin"))
        with pytest.raises(DeclarationError) as caught:
            wrong.sweeps()
        place = f"{tmp_path / 'test.yaml'}:{line_of(tmp_path / 'test.yaml', 'onlin,')}: tables.0.rows.0.variant: "
        problem = "'onlin' is not a variant of mer/rotations; did you mean 'online'"
        assert str(caught.value).startswith(place + problem)

    def test_no_such_reproduction(self):
        with pytest.raises(DeclarationError, match="did you mean 'mer_rotations'"):
            load_reproduction("mer_rotatons")

    def test_a_sweep_copied_elsewhere_keeps_its_ids(self, tmp_path):
        copied = Path(shutil.copy(find_sweep("mer/rotations"), tmp_path / "mine.yaml"))
        assert ids(copied) == ids(Path("mer/rotations"))


def test_random_orders_do_not_touch_the_global_generator():
    before = np.random.get_state()[1].tolist()
    RandomOrders(random=2, seed=0)
    assert np.random.get_state()[1].tolist() == before
