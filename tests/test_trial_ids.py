"""The ids of all shipped trials: a record in a user's store must stay the record of its trial.

An id is a hash of a trial's whole declaration, defaults included, and of its data.
tests/fixtures/trial_ids.json holds a digest of the declarations of each variant of each shipped sweep, whole and in its
quick form. A setting that is added later must leave them as they are (``later`` in the settings does that). Where a
number is changed on purpose, the sweep's ``version`` is raised; then, as for a new sweep or a new variant,

    python tests/test_trial_ids.py

writes the new digests into the file. It refuses to replace the digest of a variant whose version is the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from clray.loading import load_sweep, sweep_names
from clray.selection import Selection

FILE = Path(__file__).resolve().parent / "fixtures" / "trial_ids.json"
FORMS = {"whole": Selection(), "quick": Selection(quick=True)}


def digests(name: str) -> dict[str, dict[str, str]]:
    """``VERSION:DIGEST`` of the declarations of a variant's trials, by form of the sweep and variant."""
    found: dict[str, dict[str, str]] = {}
    for form, selection in FORMS.items():
        declared = defaultdict(list)
        sweep = load_sweep(name, selection)
        for cell in sweep.cells:
            declared[cell.variant].append(cell.trial.declaration)
        found[form] = {
            variant: f"{sweep.version}:{hashlib.sha256(chr(10).join(each).encode()).hexdigest()[:16]}"
            for variant, each in declared.items()
        }
    return found


def changed(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
    """The variants whose trials have other ids now although the sweep's version is the same."""
    return [
        f"{variant} ({form})"
        for form, variants in old.items()
        for variant, digest in variants.items()
        if variant in new[form]
        and new[form][variant] != digest
        and new[form][variant].split(":")[0] == digest.split(":")[0]
    ]


@pytest.mark.parametrize("name", sweep_names())
def test_no_shipped_trial_has_another_id(name):
    kept, now = json.loads(FILE.read_text())[name], digests(name)
    assert not changed(kept, now), "records of these variants would be lost; see the head of this file"
    assert now == kept, "the file does not have these variants or this version yet; see the head of this file"


def test_a_changed_declaration_is_found():
    old = {"whole": {"a": "1:aa", "b": "1:bb", "gone": "1:cc"}, "quick": {"a": "1:dd"}}
    new = {"whole": {"a": "1:aa", "b": "1:xx", "new": "1:yy"}, "quick": {"a": "2:zz"}}
    assert changed(old, new) == ["b (whole)"]


def main() -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    now = {name: digests(name) for name in sweep_names()}
    lost = [f"{name}: {', '.join(each)}" for name in now if (each := changed(kept.get(name, {}), now[name]))]
    if lost:
        sys.exit("ids changed, and the sweep's version did not:\n" + "\n".join(lost))
    FILE.write_text(json.dumps(now, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
