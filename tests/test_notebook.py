"""The notebooks of docs/ run from the first cell to the last, and hold no outputs.

A notebook's kernel would need 37 packages more, of 106 MB. The cells are run in their order in one namespace, and the
last expression of each is shown as a notebook shows it, which is all that these notebooks use of a kernel.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import GUARD

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
SHOW = """
import matplotlib
matplotlib.use("agg")

def show(value):
    html = getattr(value, "_repr_html_", lambda: None)()
    print(html if html is not None else repr(value))
"""


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    data = json.loads(notebook.read_text(encoding="utf-8"))
    assert data["nbformat"] == 4
    return [cell for cell in data["cells"] if cell["cell_type"] == kind]


def program(notebook: Path) -> str:
    """The code of all cells, with a call of ``show`` around the expression that ends a cell."""
    parts = [SHOW]
    for cell in cells(notebook, "code"):
        tree = ast.parse("".join(cell["source"]))
        *_, last = tree.body
        if isinstance(last, ast.Expr):
            last.value = ast.Call(ast.Name("show", ast.Load()), [last.value], [])
        parts.append(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n".join(parts)


def test_there_is_one():
    if not (ROOT / "docs").exists():
        pytest.skip("docs/ is not part of an installed package")
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("kernels")
def test_it_runs_without_the_data_of_this_machine(notebook, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "CLRAY_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", program(notebook)], cwd=tmp_path, capture_output=True, text=True, timeout=GUARD,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "<table" in done.stdout
    assert "<pre" in done.stdout
    assert "Warning" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "it leaves nothing where it runs"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_holds_no_outputs(notebook):
    for cell in cells(notebook, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
