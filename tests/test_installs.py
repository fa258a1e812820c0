"""Every place that installs clray names the extras that are needed there."""

from __future__ import annotations

import re

import pytest
from bare import ROOT, declared

PLACES = {
    "Makefile": [{"dev", "cluster"}, {"dev"}],
    "ray_cluster.yaml": [{"ray", "cloud"}, {"ray", "language", "cloud"}, {"all", "cluster"}],
    "docs/on_premises.yaml": [{"ray", "language"}, {"all", "cluster"}],
    "docs/kubernetes.md": [{"cluster", "language", "cloud", "search"}],
    "docs/cluster.md": [{"ray", "cloud"}, {"cluster"}],
    "docs/your_method.md": [set(), set(), {"ray"}],
}
INSTALL = re.compile(
    r"pip install (?:[^\n`#&]*?\s)?(?:-e )?(?:clray|\S*/clray|\.|'?/src|'(?:clray|\.))"
    r"(?:'?\[([a-z,]+)\]'?)?(?=[\s`.,&)]|$)",
    re.M,
)
"""``pip install`` with its options, then clray by its name or a path, and its extras."""


@pytest.mark.parametrize("place", PLACES)
def test_a_place_names_its_extras(place):
    text = (ROOT / place).read_text(encoding="utf-8")
    found = [set(filter(None, (extras or "").split(","))) for extras in INSTALL.findall(text)]
    assert found == PLACES[place]
    for extras in found:
        assert all(declared(extra) for extra in extras)


def test_no_other_place_installs_it_without_extras():
    """A new page that installs clray has to say which extras it needs, and stand above."""
    known = {*PLACES, "README.md", "CHANGELOG.md", "docs/search.md", "docs/python.md", "docs/wandb.md"}
    pages = {file for pattern in ("*.md", "*.yaml", "docs/**/*.md", "docs/**/*.yaml") for file in ROOT.glob(pattern)}
    assert len(pages) > 20
    for file in pages:
        if str(file.relative_to(ROOT)) not in known:
            assert not INSTALL.search(file.read_text(encoding="utf-8")), file
