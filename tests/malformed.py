"""A seeded generator of malformed declarations and flags: valid ones, changed by one or more kinds of mistakes.

Each case has a number, and a number always gives the same case. A case must be accepted, or give one error of clray
that names its place. It must not raise another exception, and it must end.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

STREAM = """\
version: 1
paper: mer
title: A stream
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 30, source: embedded, seed: 0, angles: [0, 10, 20]}
model: {name: mlp, hidden: [20, 20]}
evaluate: after_task
randomness: clray
engine: auto
precision: float32
seeds: [0, 1]
task_orders: [identity, [2, 1, 0]]
resources: {cpu: 1, gpu: 0, pack: 2}
metrics: [RA, LA]
variants:
  online: {method: online, lr: 0.01, grid: {lr: [0.1, 0.2]}}
  ewc: {method: ewc, lr: 0.01, strength: 10.0, memories_per_task: 10}
  gem: {method: gem, lr: 0.01, margin: 0.5, memories_per_task: 12, benchmark: {tasks: 3}, resources: {cpu: 2}}
  mer: {method: mer, lr: 0.05, memories: 20, replay_batch: 5, beta: 0.1, gamma: 0.9, model: {hidden: [8]}}
grid: {model.hidden: [[7, 7], [8]]}
quick: {benchmark: {tasks: 3}, seeds: [0], only: [online]}
"""
TASKS = """\
version: 1
paper: tag
title: Task by task
track: vision
benchmark: {name: rotated-mnist, tasks: 3, degrees: 30, train_per_task: 100, test_per_task: 100, source: embedded}
model: {name: mlp, hidden: [20]}
seeds: [0, 1]
variants:
  naive: {method: naive, optimizer: adam, lr: 0.1}
  agem: {method: agem, lr: 0.1, memories_per_class: 1}
grid: {benchmark.epochs: [1, 2]}
metrics: [ACC, F]
"""
EPISODES = """\
version: 1
paper: metaseq2seq
title: Episodes
track: episodes
benchmark: {name: mutual_exclusivity}
model: {embedding: 20, layers: 2, dropout: 0.5}
evaluate: 10
seeds: [0]
variants:
  meta: {method: meta_seq2seq, lr: 0.001, episodes: 20, memory: false}
metrics: [ACC]
"""
LANGUAGE = """\
version: 1
paper: lamol
title: Texts
track: language
benchmark: {name: text-stream, tasks: [scan.actions, scan.first], train_per_task: 30, test_per_task: 10}
model: {name: scratch, layers: 1, width: 16, heads: 2, positions: 64, vocabulary: stream, vocabulary_size: 300}
seeds: [0]
task_orders: [[scan.actions, scan.first], [scan.first, scan.actions]]
resources: {cpu: 1, gpu: 0.5}
variants:
  lamol: {method: lamol, gamma: 0.2}
  finetune: {method: finetune, grid: {lr: [0.001, 1e-4]}}
metrics: [ACC]
"""
SWEEPS = {"stream": STREAM, "tasks": TASKS, "episodes": EPISODES, "language": LANGUAGE}

REPRODUCTION = """\
version: 1
paper: mer
title: A test
runs: 5
spread: sd
known: recalled
margins: {RA: {points: 1.0, reason: because it is a test}}
differences: [none]
tables:
  - title: One
    sweep: mer/rotations
    source: Table 1
    metrics: [RA, LA]
    rows:
      - {label: Online, variant: online, claims: {RA: 53.38 ± 1.53, LA: {mean: 58.82, runs: 3, kind: sem}}}
      - {label: EWC, variant: ewc, claims: {RA: "−57.5 ± ?", LA: 61}, note: a note}
searches:
  - title: Searches
    sweep: tag/cifar100_grid
    source: an appendix
    rows:
      - {label: Naive, variant: naive-sgd, published: {lr: 0.1}}
"""

OTHER = [
    None, True, False, 0, 1, -1, 5, 0.5, "", "x", "a b", "1", "nan", "inf", "true", "~nobody/x", [], [1], [[]], [None],
    ["a", "a"], {}, {"a": 1}, {"name": 1}, {"name": ["mlp"]}, {"x": {"y": []}}, [{"a": 1}], "1e-3", "0x10",
]  # fmt: skip
"""Values of any type, to stand where another is expected."""
NUMBERS = [
    float("inf"), float("-inf"), float("nan"), 0, -1, -0.0, 1e308, 1e-320, 5e-5, 1.5, 10**6, 2**31, 2**32, 2**63, 2**64,
    10**30, 10**400, True, False, "1", "1.5", None,
]  # fmt: skip
"""Numbers that have sense nearly nowhere, and what is taken for a number. A track may well accept some millions."""
WORDS = [
    "nosuch", "mlpp", "", " ", "a" * 5000, "nul\0", "esc\x1b[31m", "line\nend", "[/x]", "[red]", "$x$", "a/b", "a@b",
    "é", "日本", "\u202e", "../..", "/", "~nobody/x", "a,b", "a.b", "%s", "{x}", "no", "1", "\U0001f600", "on", "--x",
]  # fmt: skip
"""Names that refer to nothing, or that a file, a terminal or a page would take for something else."""
ODD_KEYS = [
    1,
    True,
    None,
    1.5,
    "",
    "nosuch",
    "a" * 5000,
    "nul\0",
    "a.b",
    "name",
    "[x]",
    "line\nend",
    "grid",
    "function",
]
KEYS_AS_TEXT = ["? [a]\n: 1", "? {a: 1}\n: 1", "no: 1", "on: 1", "1: 1", "~: 1", "<<: {a: 1}", "=: 1", "2001-01-01: 1"]
ORDERS = [
    [], ["identity", "identity"], ["identity", [0, 1, 2]], [[0, 1, 2], [0, 1, 2]], {"random": 7}, {"random": 3_000_000},
    {"random": 10**30}, {"random": 6, "seed": 2**70}, {"random": True}, [[0, 1]], [[0, 1, 1]], [[]], "identity",
    [["a"]], [[True, 0, 2]], {"seed": 1}, ["scan.first"], [["scan.first", "scan.first"]], "all", ["all"],
]  # fmt: skip
GRIDS = [
    {"lr": [0.1, 0.1]}, {"lr": [0.1, "0.1"]}, {"lr": []}, {"lr": 0.1}, {"benchmark": [1]}, {"model": [[1]]}, {"": [1]},
    {"method": [["a"], "b"]}, {"model": [{"hidden": [1]}], "model.hidden": [[2]]}, {"resources": [None]},
    {"lr": list(range(1, 400)), "seed": list(range(400))}, {".".join("a" * 3000): [1]}, {"lr": ["x\ny", "z"]}, [],
    {"a.b.c": [1]}, {"lr": [[]]},
]  # fmt: skip
QUICK = [
    {"only": "online"},
    {"only": []},
    {"only": [1]},
    {"sedes": [0]},
    {"only": ["nosuch"]},
    [],
    {"quick": {}},
    {"seeds": 1},
]

TAGGED = ["!!python/object/apply:os.system [ls]", "!!set {a}", "!!int a", "*y", "!!binary aGk=", "!own 1"]
SCALARS = ["1e400", ".inf", ".nan", "0x_", "1_", "2001-99-99", "9" * 5000, '"\\ud800"', '"\\0"', "!!str"]
BOMB = "\n".join(
    [
        "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
        *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 12)),
    ]
)


@dataclass(frozen=True)
class Case:
    """A malformed declaration.

    Attributes:
        kind: of its first mistake.
        content: of the file.
    """

    kind: str
    content: bytes


def _places(data: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key) below ``data``."""
    found = [] if found is None else found
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        found.append((data, key))
        _places(value, found)
    return found


def _mappings(data: Any) -> list[dict[Any, Any]]:
    return [data, *(box[key] for box, key in _places(data) if isinstance(box[key], dict))]


def _type(rng: random.Random, data: Any) -> None:
    box, key = rng.choice(_places(data))
    box[key] = copy.deepcopy(rng.choice(OTHER))


def _number(rng: random.Random, data: Any) -> None:
    numbers = [(box, key) for box, key in _places(data) if isinstance(box[key], int | float)]
    box, key = rng.choice(numbers or _places(data))
    box[key] = rng.choice(NUMBERS)


def _word(rng: random.Random, data: Any) -> None:
    box, key = rng.choice([(box, key) for box, key in _places(data) if isinstance(box[key], str)] or _places(data))
    box[key] = rng.choice(WORDS)


def _key(rng: random.Random, data: Any) -> None:
    box = rng.choice(_mappings(data))
    what = rng.choice(["add", "rename", "remove"])
    value = copy.deepcopy(rng.choice(OTHER))
    if what != "add" and box:
        value = box.pop(rng.choice(list(box)))
    if what != "remove":
        box[rng.choice(ODD_KEYS)] = value


def _twice(rng: random.Random, data: Any) -> None:
    lists = [box[key] for box, key in _places(data) if isinstance(box[key], list) and box[key]]
    if lists:
        chosen = rng.choice(lists)
        chosen.append(copy.deepcopy(rng.choice(chosen)))


def _empty(rng: random.Random, data: Any) -> None:
    box, key = rng.choice([(box, key) for box, key in _places(data) if isinstance(box[key], list | dict)])
    box[key] = type(box[key])()


def _name(rng: random.Random, data: Any) -> None:
    variants = data.get("variants")
    if isinstance(variants, dict) and variants:
        value = variants.pop(rng.choice(list(variants)))
        variants[rng.choice([*WORDS, *ODD_KEYS])] = value
    else:
        _word(rng, data)


def _frame(rng: random.Random, data: Any) -> None:
    """Task orders, grids and quick forms, of which there is much to get wrong."""
    key, values = rng.choice([("task_orders", ORDERS), ("grid", GRIDS), ("quick", QUICK), ("grid", GRIDS)])
    box = data
    if key == "grid" and isinstance(data.get("variants"), dict) and rng.random() < 0.5:
        inner = [settings for settings in data["variants"].values() if isinstance(settings, dict)]
        box = rng.choice(inner or [data])
    box[key] = copy.deepcopy(rng.choice(values))


def _section(rng: random.Random, data: Any) -> None:
    """Replace one section in a variant, or in the sweep itself, with a value of another kind."""
    settings = [s for s in (data.get("variants") or {}).values() if isinstance(s, dict)] or [data]
    section = rng.choice(["benchmark", "model", "resources", "method", "grid", "lr"])
    rng.choice(settings)[section] = copy.deepcopy(rng.choice(OTHER))


DATA_KINDS: dict[str, Callable[[random.Random, Any], None]] = {
    "type": _type,
    "number": _number,
    "word": _word,
    "key": _key,
    "twice": _twice,
    "empty": _empty,
    "name": _name,
    "frame": _frame,
    "section": _section,
}


def _yaml(rng: random.Random, text: str) -> bytes:
    """Mistakes of YAML itself, and what is no text."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    many = "".join(f"  v{i}: {{method: online}}\n" for i in range(20_000))
    do: list[Callable[[], str | bytes]] = [
        lambda: f"{text}{BOMB}\n",
        lambda: text.replace("title: ", "title: &t ", 1) + "quick: {title: *t}\n",
        lambda: f"{text}x: &x [*x]\n",
        lambda: f"{text}x: {'[' * 3000}\n",
        lambda: f"{text}x: {'[' * 3000}{']' * 3000}\n",
        lambda: f"{text}x: {'{a: ' * 500}1{'}' * 500}\n",
        lambda: text.replace("variants:\n", f"variants:\n{many}"),
        lambda: f"{text}{rng.choice(KEYS_AS_TEXT)}\n",
        lambda: text.replace("variants:\n", f"variants:\n  {rng.choice(KEYS_AS_TEXT)[:6]}\n", 1),
        lambda: "\n".join([*lines[: at + 1], *lines[at:]]),
        lambda: "\n".join([*lines[:at], "\t" + lines[at], *lines[at + 1 :]]),
        lambda: "\n".join([*lines[:at], " " + lines[at], *lines[at + 1 :]]),
        lambda: text[: rng.randrange(len(text))],
        lambda: f"{text}---\n{text}",
        lambda: f"{text}x: {rng.choice(TAGGED)}\n",
        lambda: text.replace(": ", ": !!str ", 1),
        lambda: text.encode("utf-16"),
        lambda: text.encode()[: len(text) // 2] + rng.randbytes(20) + text.encode()[len(text) // 2 :],
        lambda: b"\x00" + text.encode(),
        lambda: b"",
        lambda: rng.randbytes(300),
        lambda: text.replace("0", rng.choice(SCALARS)),
        lambda: text.replace("\n", rng.choice(["\r\n", "\r", "\u2028"])),
    ]  # fmt: skip
    made = rng.choice(do)()
    return made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass")


def malformed(number: int, text: str) -> Case:
    """A valid declaration's text with one mistake or two."""
    rng = random.Random(number)
    if rng.random() < 0.2:
        return Case("yaml", _yaml(rng, text))
    data, kinds = yaml.safe_load(text), rng.choices(list(DATA_KINDS), k=rng.choice([1, 1, 1, 2]))
    for kind in kinds:
        DATA_KINDS[kind](rng, data)
    return Case(kinds[0], yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass"))


def flags(number: int) -> list[str]:
    """Flags of ``clray plan`` or ``clray sweep --dry-run`` with a mistake, for the sweep ``STREAM``."""
    rng = random.Random(number)
    keys = [
        "benchmark.tasks", "variants.ewc.lr", "seeds", "model", "variants", "variants.ewc", "grid.lr", "task_orders",
        "a", "quick.only", "variants.ewc.model.hidden", "resources.gpu", "version.x", "", "..", "variants..lr",
        "paper", "benchmark." + "a." * 3000 + "b", "variants.nosuch.lr", "metrics", "track",
    ]  # fmt: skip
    values = [
        "", "[", "{", "x", "1e400", ".inf", "nan", "[0, 0]", "{no: 1}", "&a [*a]", "[" * 3000, "true", "~", "'", "-1",
        str(2**70), "9" * 5000, "{random: 3000000}", "\x00", "[[0, 1]]", "[RA, RA]", "!!null x",
    ]  # fmt: skip
    seeds = ["", ",", "a", "1,1", "-1", "1.5", str(2**32), str(2**70), "9" * 5000, "0;1", "0,,1", "é", " "]
    only = ["", ",", "nosuch", "ewc,nosuch", "a" * 5000, "[x]", "online@lr=9", " ", "é", "EWC", "\x1b"]
    shares = ["inf", "nan", "1.5", "-1", "x", "1e400", "1e-9", "", "2000", "-inf"]
    kind = rng.choice(["set", "set", "set", "seeds", "only", "gpu"])
    if kind == "set":
        separator = rng.choice(["=", "=", "=", "=", " ", "", "=="])
        return ["plan", "--set", f"{rng.choice(keys)}{separator}{rng.choice(values)}"]
    if kind == "gpu":
        return ["sweep", "--dry-run", "--gpu", rng.choice(shares)]
    return ["plan", f"--{kind}", rng.choice(seeds if kind == "seeds" else only)]
