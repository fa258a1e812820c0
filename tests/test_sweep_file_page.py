"""docs/sweep_file.md is about every key of a sweep file, and its example can be planned."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from clray.loading import load_sweep
from clray.resources import Resources
from clray.sweep import Sweep

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "sweep_file.md").read_text(encoding="utf-8")


def test_it_has_every_key_and_no_other():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    told = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(Sweep.model_fields)


def test_it_says_which_keys_are_required():
    for row in PAGE.splitlines():
        if row.startswith("| `"):
            for key in re.findall(r"`(\w+)`", row.split(" | ")[0]):
                assert row.endswith("| required |") == Sweep.model_fields[key].is_required(), key


def test_it_has_every_resource():
    row = next(line for line in PAGE.splitlines() if line.startswith("| `resources`"))
    assert set(Resources.model_fields) <= set(re.findall(r"`(\w+)`", row))


def test_its_example(tmp_path):
    declared = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    del declared["variants"]["mine"]  # whose file is the reader's own
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(declared), encoding="utf-8")
    assert len(load_sweep(str(path)).cells) == 10
