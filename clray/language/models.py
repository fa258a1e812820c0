"""Language models: their settings, the sources of their weights, and their growth with the vocabulary."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from clray import cache
from clray.errors import DataError
from clray.language import pretrained
from clray.language.tokens import GPT2_FILES, Vocabulary, gpt2_files, gpt2_vocabulary, of_model, stream_vocabulary
from clray.settings import TrialSettings

if TYPE_CHECKING:
    import torch

LONGEST = 1024
"""The most tokens of a sequence in LAMOL. Models that can process more get no more."""
_NEW_ROWS = 0.02
"""The standard deviation of a new token's embedding, as in GPT-2."""


_MOST_PARAMETERS = 10_000_000_000
"""The weights, the gradients and the optimizer's two moments of so many parameters take 160 GB."""


class Settings(TrialSettings):
    """A causal language model: a pretrained one, or a small GPT-2 with random weights.

    Only ``scratch`` has settings for size, dropout and vocabulary: a pretrained model has its own.
    """

    name: Annotated[str, Field(min_length=1)] = "scratch"
    """``scratch``, a model's name on the Hugging Face hub (``gpt2``, ``openai-gpt``), or a folder that holds one."""
    gguf: Annotated[str, Field(pattern=r"^[\w.+-]+\.gguf$")] | None = None
    """The file of a pretrained model's weights, where they are in llama.cpp's format."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 4
    width: Annotated[int, Field(ge=1, le=65_536)] = 256
    heads: Annotated[int, Field(ge=1, le=65_536)] = 4
    positions: Annotated[int, Field(ge=8, le=65_536)] = 256
    """The most tokens of a sequence."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The dropout rate in the embeddings, the attention and every layer."""
    vocabulary: Literal["gpt2", "stream"] = "stream"
    """GPT-2's vocabulary, or byte pairs trained on the stream's texts."""
    vocabulary_size: Annotated[int, Field(ge=257, le=1_000_000)] = 4096
    """The most tokens of the vocabulary ``stream``, without the special tokens."""

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
        if self.name == "scratch":
            if self.gguf is not None:
                raise ValueError("gguf: weights from a file and name: scratch exclude each other")
            if self.width % self.heads:
                near = [n for n in range(1, min(self.width, 64) + 1) if self.width % n == 0]
                allowed = f"allowed: its divisors, such as {', '.join(map(str, near))}"
                raise ValueError(f"heads: {self.heads} do not divide a width of {self.width}; {allowed}")
            if self.parameters > _MOST_PARAMETERS:
                most = f"allowed: up to {_MOST_PARAMETERS:,}"
                raise ValueError(f"layers, width: a model of about {self.parameters:,} parameters; {most}")
            return self
        for field in ("layers", "width", "heads", "positions", "dropout", "vocabulary", "vocabulary_size"):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field}: only name: scratch has it; {self.name} has its own")
        return self

    @property
    def parameters(self) -> int:
        """The approximate number of parameters of ``scratch``: those of its matrices."""
        return self.layers * 12 * self.width**2 + (self.vocabulary_size + self.positions) * self.width


# --------------------------------------------------------------------------------------------------------------
# Sources of weights and vocabulary


def describe(settings: Settings, fetch: bool = False) -> dict[str, Any]:
    """Describe the weights or the vocabulary that a trial would use on this machine.

    Returns:
        ``name``, ``source`` (``scratch`` where nothing is read, else ``CLRAY_DATA``, ``cache``, ``folder``, ``hub
        cache`` or ``hub``) and ``fingerprint``, a hash of the content. For ``scratch``, ``partial`` says that it is not
        a paper's model.

    Raises:
        DataError: they are not on this machine, and cannot or must not be downloaded.
    """
    if settings.name != "scratch":
        place = pretrained.locate(settings.name, settings.gguf, fetch)
        fingerprint = pretrained.fingerprint(place.folder, settings.gguf)
        return {"name": settings.name, "source": place.source, "fingerprint": fingerprint}
    about, source = settings.model_dump(mode="json"), "scratch"
    if settings.vocabulary == "gpt2":
        source = "cache" if cache.cache_folder() in gpt2_files(fetch)[0].parents else "CLRAY_DATA"
        about["files"] = [sha256 for _, sha256 in GPT2_FILES.values()]
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    partial = "the model is small and begins with random weights, in place of pretrained ones"
    return {"name": "scratch", "source": source, "fingerprint": fingerprint, "partial": partial}


def vocabulary(settings: Settings, texts: Iterable[str], described: dict[str, Any] | None = None) -> Vocabulary:
    """The vocabulary that a trial begins with.

    Args:
        texts: the texts of the stream; read only where the vocabulary is trained on them.
        described: what ``describe`` gave where the trial was planned: this machine must have the same.

    Raises:
        DataError: it is not here, or this machine has other files than those described.
    """
    if described is not None and describe(settings)["fingerprint"] != described["fingerprint"]:
        raise DataError(
            f"model {settings.name}: its files here are not those of this trial "
            f"(their fingerprint is not {described['fingerprint'][:16]}…)"
        )
    if settings.name != "scratch":
        return of_model(settings.name, settings.gguf)
    if settings.vocabulary == "gpt2":
        return gpt2_vocabulary()
    return stream_vocabulary(texts, settings.vocabulary_size)


# --------------------------------------------------------------------------------------------------------------
# Building and growing a model


def build(settings: Settings, vocabulary: Vocabulary, seed: int) -> torch.nn.Module:
    """The model, in 32-bit floats on the CPU, with an embedding for every token of the vocabulary.

    Args:
        seed: the seed of the random weights; torch's own generators do not change.

    Returns:
        ``GPT2LMHeadModel`` for ``scratch``, otherwise the class that ``transformers`` chooses. The attention is
        PyTorch's scaled dot product wherever ``transformers`` has it for the model (not for OpenAI's first GPT).

    Raises:
        DataError: the model is not on this machine, or ``transformers`` cannot load it as a causal language model.
    """
    if settings.name == "scratch":
        return _scratch(settings, vocabulary, seed)
    model = _pretrained(settings, seed)
    grow(model, len(vocabulary), seed)
    return model


def _scratch(settings: Settings, vocabulary: Vocabulary, seed: int) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=settings.positions,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        initializer_range=_NEW_ROWS,
        bos_token_id=vocabulary.eos,
        eos_token_id=vocabulary.eos,
        attn_implementation="sdpa",
    )
    with _drawing(seed):
        return GPT2LMHeadModel(config)


def _pretrained(settings: Settings, seed: int) -> torch.nn.Module:
    import torch
    from transformers import AutoModelForCausalLM

    folder = pretrained.locate(settings.name, settings.gguf).folder
    options: dict[str, Any] = {"gguf_file": settings.gguf} if settings.gguf else {}
    if not settings.gguf:
        options["use_safetensors"] = not pretrained.is_pickled(folder)
    try:
        with _drawing(seed), _quietly():
            model, loaded = AutoModelForCausalLM.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,  # pickles of weights may hold only tensors
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # transformers raises errors of many types for a broken file
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise DataError(f"{folder}: no causal language model that transformers can load: {reason}") from None
    if missing := sorted(map(str, {*loaded["missing_keys"], *loaded["mismatched_keys"]})):
        raise DataError(f"{folder}: weights of the model are missing or of another size: {', '.join(missing[:3])} …")
    if not _is_causal(model):
        raise DataError(f"{folder}: not a causal language model: its {model.config.model_type} attends to later tokens")
    return model


def _is_causal(model: torch.nn.Module) -> bool:
    """True where a token's output does not depend on later tokens: ``transformers`` also loads BERT as a decoder."""
    import torch

    with torch.inference_mode():
        one, other = model.eval()(torch.tensor([[0, 1], [0, 2]])).logits[:, 0]
    return torch.allclose(one, other, atol=1e-4)


def grow(model: torch.nn.Module, count: int, seed: int) -> None:
    """Resize the embeddings to exactly ``count`` tokens; new rows are drawn from N(0, 0.02).

    Input and output embeddings that are one matrix stay one. The parameters of a separate output layer become new
    objects, so make the optimizer after this.

    Args:
        seed: the seed of the new rows; torch's own generators do not change.
    """
    import torch

    before = _rows(model)
    if count == before:
        return
    with _drawing(seed, model.get_input_embeddings().weight.device), _quietly():  # type: ignore[operator]
        model.resize_token_embeddings(count, mean_resizing=False)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[operator]
        if layer is None or count < before or id(layer.weight) in seen:
            continue
        seen.add(id(layer.weight))
        with torch.no_grad():
            new = torch.empty(count - before, layer.weight.shape[1]).normal_(0, _NEW_ROWS, generator=generator)
            layer.weight[before:] = new.to(layer.weight)


def _rows(model: torch.nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


def positions(model: torch.nn.Module) -> int:
    """The most tokens of a sequence that the model can process, at most LAMOL's 1,024."""
    read = getattr(model.config, "max_position_embeddings", None)
    return min(read or LONGEST, LONGEST)


@contextlib.contextmanager
def _drawing(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """A context in which ``transformers`` draws from this seed; torch's generators are restored afterwards."""
    import torch

    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every accelerator's too
        yield


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """A context without progress bars, and without the report of unused entries of a checkpoint."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
