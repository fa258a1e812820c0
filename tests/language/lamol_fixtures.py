"""Shared parts of the language track's tests: the official code's encodings, and GPT-2's published vocabulary."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from clray.errors import DataError
from clray.language.tokens import Vocabulary, gpt2_vocabulary

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "lamol"


@cache
def reference(name: str) -> Any:
    """A file of the fixtures, which holds output of the official code."""
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def lamol_vocabulary() -> Vocabulary:
    """GPT-2's vocabulary with the shared generation token, as the fixtures have it; without it the test is skipped."""
    if not os.environ.get("CLRAY_DATA"):
        pytest.skip("needs GPT-2's vocabulary: set CLRAY_DATA to a folder that holds lamol/gpt2_bpe/")
    try:
        vocabulary = gpt2_vocabulary()
    except DataError as error:
        pytest.skip(str(error))
    vocabulary.add("__gen__")
    return vocabulary
