"""Vocabularies: they turn text into token ids and back, as in LAMOL.

LAMOL (Sun, Ho and Lee 2020) encodes with GPT-2's tokenizer of pytorch_transformers 1.2.0, which differs from today's:
text is split at the added tokens, every piece is stripped of the white space around it and then *always* given one
space in front, so that pieces can be put one behind the other. Decoding puts a space before an added token and takes
spaces away before punctuation and contractions. ``Vocabulary`` does so on any vocabulary of the ``tokenizers`` library:
GPT-2's, one trained on the stream's texts, or a pretrained model's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray import cache
from clray.data_files import given_folder, is_file, is_file_if_allowed, reading
from clray.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END, ANSWER, PAD, UNKNOWN, SEPARATOR = "<|endoftext|>", "__ans__", "__pad__", "__unk__", "__sep__"
"""The special tokens in LAMOL's spelling. No text is encoded as ``__unk__``; it only occupies an id."""

GPT2_FILES = {
    "vocab.json": ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
"""The files of GPT-2's published vocabulary: the name here, the published name, and the SHA-256."""
_GPT2_ORIGIN = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"

_CLEANED = {
    " .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m", " do not": " don't",
    " 's": "'s", " 've": "'ve", " 're": "'re",
}  # fmt: skip
"""The replacements that decoding makes, in this order, as pytorch_transformers 1.2.0 did."""


class Vocabulary:
    """A vocabulary, which ``add`` extends.

    Args:
        base: the tokenizer; it is not changed: added tokens have the ids after its own.
        end: its token that ends a text; ``<|endoftext|>`` is added where it has none.
        added: the tokens that were added before, in the order of their ids.

    Attributes:
        eos, ans, pad, unk: the ids of the tokens that end a text, precede an answer, pad a batch, and do nothing.
    """

    def __init__(self, base: Tokenizer, end: str | None = None, added: Sequence[str] = ()) -> None:
        self._base = base
        self._first_added = max(base.get_vocab(with_added_tokens=True).values()) + 1
        self._added: dict[str, int] = {}
        self._prefix = _prefix(base)
        self._end = end or END
        for token in (*(added or (ANSWER, PAD, UNKNOWN)), self._end):
            self.add(token)
        self.eos, self.ans, self.pad, self.unk = (self.add(token) for token in (self._end, ANSWER, PAD, UNKNOWN))

    def __len__(self) -> int:
        return self._first_added + len(self._added)

    def add(self, token: str) -> int:
        """Add a token at which text is split, where it is new, and return its id."""
        if token in self._added:
            return self._added[token]
        if token == self._end and (known := self._base.token_to_id(token)) is not None:
            return int(known)
        self._added[token] = len(self)
        return self._added[token]

    def add_separator(self) -> int:
        """Add ``__sep__``, where it is new, and return its id."""
        return self.add(SEPARATOR)

    @property
    def sep(self) -> int | None:
        """The id of ``__sep__``; None where it was not added."""
        return self._added.get(SEPARATOR)

    @property
    def heavy(self) -> list[int]:
        """The ids of the classes that weigh more than others in LAMOL's losses."""
        return [self.ans] if self.sep is None else [self.ans, self.sep]

    # ----------------------------------------------------------------------------------------------------------
    # Text and ids

    def encode(self, text: str) -> list[int]:
        """The ids of a text; an empty text has none.

        As in pytorch_transformers 1.2.0, a text that is only white space gives ``__ans__``.

        Raises:
            DataError: the text holds a lone surrogate, which is no character.
        """
        ids: list[int] = []
        for piece in self._pieces(text):
            if piece == self._end or piece in self._added:
                ids.append(self.add(piece))
                continue
            try:
                ids += self._base.encode(self._prefix + piece, add_special_tokens=False).ids
            except (TypeError, UnicodeError):
                raise DataError(f"{piece[:60]!r}: a lone surrogate, which is no character") from None
        return ids

    def _pieces(self, text: str) -> list[str]:
        """Split a text at the added tokens, which become pieces of their own."""
        if not text:
            return []
        pieces = [text.strip()]
        if not pieces[0]:
            return [next(iter(self._added))]
        for token in (*self._added, self._end):
            if token in text:
                pieces = [part for piece in pieces for part in self._split(piece, token)]
        return pieces

    def _split(self, piece: str, token: str) -> list[str]:
        if piece == self._end or piece in self._added:
            return [piece]
        first, *others = (part.strip() for part in piece.split(token))
        parts = [first]
        for other in others:
            parts += [token, other]
        return [part for part in parts if part]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: a space before every added token, none before punctuation and contractions."""
        names = list(self._added)
        texts: list[str] = []
        run: list[int] = []
        for token in ids:
            if token < self._first_added:
                run.append(token)
                continue
            texts += [self._base.decode(run, skip_special_tokens=False), " ", names[token - self._first_added]]
            run = []
        text = "".join([*texts, self._base.decode(run, skip_special_tokens=False)])
        for spaced, cleaned in _CLEANED.items():
            text = text.replace(spaced, cleaned)
        return text

    # ----------------------------------------------------------------------------------------------------------
    # State

    def state(self) -> dict[str, Any]:
        """Plain data from which ``from_state`` makes the same vocabulary."""
        return {"base": self._base.to_str(), "end": self._end, "added": list(self._added)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Vocabulary:
        """The vocabulary of a ``state``."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(state["base"]), state["end"], state["added"])

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that determines an encoding: the tokens, their merges, and the added tokens."""
        about = json.dumps([self._base_fingerprint, self._prefix, self._end, list(self._added)])
        return hashlib.sha256(about.encode()).hexdigest()

    @cached_property
    def _base_fingerprint(self) -> str:
        tokens = self._base.get_vocab(with_added_tokens=True)
        described = json.loads(self._base.to_str())
        about = [sorted(tokens.items()), described["model"].get("merges")]
        about += [described["normalizer"], described["pre_tokenizer"]]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _prefix(base: Tokenizer) -> str:
    """The prefix with which a piece is encoded as inside a text: a space, or nothing where the tokenizer adds it."""

    def ids(text: str) -> list[int]:
        return list(base.encode(text, add_special_tokens=False).ids)

    within = ids("a b")
    return " " if within == ids("a") + ids(" b") != ids("a") + ids("b") else ""


# --------------------------------------------------------------------------------------------------------------
# Sources of vocabularies


def gpt2_vocabulary(fetch: bool = False) -> Vocabulary:
    """GPT-2's published vocabulary of 50,257 byte pairs, with LAMOL's special tokens.

    Args:
        fetch: True to download it where it is neither below ``CLRAY_DATA`` (``lamol/gpt2_bpe``) nor in the cache.

    Raises:
        DataError: it is not on this machine, cannot be downloaded, or is not the published one.
    """
    from tokenizers.models import BPE

    vocabulary, merges = gpt2_files(fetch)
    return Vocabulary(_byte_level(BPE.from_file(str(vocabulary), str(merges))), END)


def gpt2_files(fetch: bool = False) -> tuple[Path, Path]:
    """The two files of GPT-2's vocabulary, checked; see ``gpt2_vocabulary``."""
    given, cached = given_folder(), cache.cache_folder() / "lamol" / "gpt2_bpe"
    folders = [cached] if given is None else [given / "lamol" / "gpt2_bpe", cached]
    found = []
    for name, (published, sha256) in GPT2_FILES.items():
        here = (folder / spelt for folder in folders for spelt in (name, published))
        path = next((p for p in here if (is_file_if_allowed(p) if cached in p.parents else is_file(p))), None)
        if path is None and fetch:
            path = cache.download("GPT-2's vocabulary", name, [_GPT2_ORIGIN + published], f"sha256:{sha256}", cached)
        if path is None:
            raise DataError(
                f"GPT-2's vocabulary is not here: {name} is in none of {', '.join(map(str, folders))}; put {published} "
                f"from {_GPT2_ORIGIN} there as {name}, fetch it, or take model.vocabulary: stream"
            )
        with reading(path):
            digest = cache.sha256(path)
        if digest != sha256:
            raise DataError(f"{path}: not GPT-2's published {published}: SHA-256 {digest}, expected {sha256}")
        found.append(path)
    return found[0], found[1]


def stream_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """A byte-level byte-pair vocabulary trained on these texts, with LAMOL's special tokens.

    Args:
        texts: the texts of the stream; the same texts give the same vocabulary.
        size: the most tokens, with the 256 bytes and the end, without the added special tokens.
    """
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    base = _byte_level(BPE())
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    base.train_from_iterator((" " + text.strip() for text in texts), trainer)
    return Vocabulary(base, END)


def of_model(name: str, gguf: str | None = None, fetch: bool = False) -> Vocabulary:
    """The vocabulary of a pretrained model, with LAMOL's special tokens.

    Args:
        name, gguf, fetch: see ``clray.language.pretrained.locate``.

    Raises:
        DataError: it is not on this machine, or ``transformers`` cannot load it as a fast tokenizer.
    """
    from transformers import AutoTokenizer

    from clray.language.pretrained import locate

    folder = locate(name, gguf, fetch).folder
    options = {"gguf_file": gguf} if gguf else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # transformers raises errors of many types for a broken file
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise DataError(f"{folder}: no tokenizer that transformers can load: {reason}") from None
    base = getattr(tokenizer, "backend_tokenizer", None)
    if base is None:
        raise DataError(f"{folder}: its tokenizer has no fast form (tokenizer.json)")
    base.no_padding()
    base.no_truncation()
    return Vocabulary(base, tokenizer.eos_token)


def _byte_level(model: Any) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    base = Tokenizer(model)
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    return base
