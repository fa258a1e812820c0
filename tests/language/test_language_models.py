"""Language models: declared, built, enlarged, and missing; no test uses the network."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lamol_fixtures import lamol_vocabulary
from pydantic import ValidationError

from clray.errors import DataError
from clray.language import pretrained
from clray.language.models import Settings, build, describe, grow, positions, vocabulary
from clray.language.tokens import Vocabulary, of_model, stream_vocabulary

TEXTS = ["is it raining?", "it is raining again", "walk twice and look left"] * 3
SMALL: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "positions": 32, "vocabulary_size": 280}


@pytest.fixture
def small() -> Vocabulary:
    return stream_vocabulary(TEXTS, 280)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama and its own tokenizer, as any model of the hub is saved."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    base = stream_vocabulary(TEXTS, 280)._base
    config = LlamaConfig(
        vocab_size=320,  # more rows than the tokenizer has tokens, as many models have
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# --------------------------------------------------------------------------------------------------------------
# From scratch


def test_a_model_is_the_same_from_one_seed_and_no_other(small: Vocabulary) -> None:
    settings = Settings(**SMALL)
    one, same, other = (build(settings, small, seed) for seed in (3, 3, 4))
    assert _same(one, same)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_building_and_growing_leave_torchs_generator_alone(small: Vocabulary, llama: Path) -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    for settings in (Settings(**SMALL), Settings(name=str(llama))):
        grow(build(settings, small, 0), len(small) + 5, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_has_the_declared_size(small: Vocabulary) -> None:
    model = build(Settings(**SMALL, dropout=0.2), small, 0)
    config = model.config
    assert (config.n_layer, config.n_embd, config.n_head, config.vocab_size) == (2, 16, 2, len(small))
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.2}
    assert positions(model) == 32
    with pytest.raises(IndexError):
        model(torch.zeros(1, 33, dtype=torch.int64))


def test_attention_is_the_scaled_dot_product(small: Vocabulary, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return attention(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    for settings in (Settings(**SMALL), Settings(name=str(llama))):
        model = build(settings, small, 0)
        calls.clear()
        model(torch.zeros(1, 4, dtype=torch.int64))
        assert len(calls) == 2  # one a layer


# --------------------------------------------------------------------------------------------------------------
# Growing


def test_new_tokens_get_rows_and_the_others_keep_theirs(small: Vocabulary) -> None:
    model = build(Settings(**SMALL), small, 0)
    before, parameter = model.transformer.wte.weight.detach().clone(), model.transformer.wte.weight
    grow(model, len(small) + 500, 5)
    assert model.transformer.wte.weight is parameter
    assert model.lm_head.weight is parameter
    after = parameter.detach()
    assert torch.equal(after[: len(small)], before)
    assert abs(float(after[len(small) :].std()) - 0.02) < 0.001
    assert abs(float(after[len(small) :].mean())) < 0.001
    assert model(torch.tensor([[len(small) + 499]])).logits.shape == (1, 1, len(small) + 500)
    assert model.config.vocab_size == len(small) + 500


def test_tied_weights_stay_tied_in_training_and_saving(small: Vocabulary) -> None:
    model = build(Settings(**SMALL), small, 0)
    grow(model, len(small) + 1, 5)
    names = [name for name, _ in model.named_parameters()]
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.tensor([[len(small)]]), labels=torch.tensor([[len(small)]])).logits.sum().backward()
    optimizer.step()
    assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    again = build(Settings(**SMALL), small, 9)
    grow(again, len(small) + 1, 8)
    again.load_state_dict(model.state_dict())
    assert again.lm_head.weight is again.transformer.wte.weight
    assert _same(again, model)


def test_growing_by_one_seed_gives_the_same_rows_whatever_came_before(small: Vocabulary) -> None:
    one, other = (build(Settings(**SMALL), small, seed) for seed in (1, 2))
    torch.manual_seed(1)
    grow(one, len(small) + 3, 7)
    torch.manual_seed(2)
    grow(other, len(small) + 3, 7)
    assert torch.equal(one.lm_head.weight[len(small) :], other.lm_head.weight[len(small) :])
    weights = one.lm_head.weight.detach().clone()
    grow(one, len(small) + 3, 8)
    assert torch.equal(one.lm_head.weight, weights)


def test_a_grown_vocabulary_and_its_model_come_back(small: Vocabulary, tmp_path: Path) -> None:
    settings = Settings(**SMALL)
    model = build(settings, small, 0)
    for visit, task in enumerate(("sst", "srl")):
        small.add(f"__{task}__")
        grow(model, len(small), visit)
    torch.save({"vocabulary": small.state(), "model": model.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    back = Vocabulary.from_state(state["vocabulary"])
    again = build(settings, back, 99)
    again.load_state_dict(state["model"])
    assert _same(again, model)
    assert back.fingerprint == small.fingerprint
    ids = torch.tensor([small.encode("__srl__ it is raining")])
    assert torch.equal(again.eval()(ids).logits, model.eval()(ids).logits)


# --------------------------------------------------------------------------------------------------------------
# Pretrained


def test_any_causal_model_of_a_folder_will_do(llama: Path) -> None:
    settings = Settings(name=str(llama))
    words = vocabulary(settings, [], describe(settings))
    assert words.decode(words.encode("it is raining")) == " it is raining"
    model = build(settings, words, 0)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert positions(model) == 1024
    assert model.get_input_embeddings().weight.shape[0] == model.get_output_embeddings().weight.shape[0] == len(words)
    assert _same(model, build(settings, words, 0))
    words.add("__gen__")
    grow(model, len(words), 1)
    back = Vocabulary.from_state(words.state())
    assert (back.fingerprint, back.encode("__gen__ it is")) == (words.fingerprint, words.encode("__gen__ it is"))
    rows = [layer.weight[-1] for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert not torch.equal(*rows)  # two matrices, and each has drawn its own
    assert model(torch.tensor([[len(words) - 1]])).logits.shape == (1, 1, len(words))


def test_a_first_gpt_will_do(small: Vocabulary, tmp_path: Path) -> None:
    """``openai-gpt`` has no cache and no scaled dot product attention in ``transformers``."""
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    config = OpenAIGPTConfig(vocab_size=len(small), n_positions=32, n_embd=16, n_layer=2, n_head=2)
    saved = OpenAIGPTLMHeadModel(config)
    saved.save_pretrained(tmp_path)
    model = build(Settings(name=str(tmp_path)), small, 0)
    assert _same(model, saved)
    grow(model, len(small) + 1, 0)
    assert model.lm_head.weight is model.transformer.tokens_embed.weight
    assert positions(model) == 32


def test_the_fingerprint_belongs_to_the_content(llama: Path, tmp_path: Path) -> None:
    first = describe(Settings(name=str(llama)))
    assert (first["name"], first["source"]) == (str(llama), "folder")
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in llama.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "README.md").write_text("not read")
    assert describe(Settings(name=str(other)))["fingerprint"] == first["fingerprint"]
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert describe(Settings(name=str(other)))["fingerprint"] != first["fingerprint"]
    with pytest.raises(DataError, match="not those of this trial"):
        vocabulary(Settings(name=str(other)), [], first)


def test_a_hub_name_is_looked_for_below_clray_data(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lamol" / "models" / "someone"
    folder.mkdir(parents=True)
    (folder / "tiny").symlink_to(llama)
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
    found = describe(Settings(name="someone/tiny"))
    assert (found["name"], found["source"]) == ("someone/tiny", "CLRAY_DATA")
    assert found["fingerprint"] == describe(Settings(name=str(llama)))["fingerprint"]


def test_a_foreign_folder_is_named(tmp_path: Path, llama: Path, small: Vocabulary) -> None:
    with pytest.raises(DataError, match="no weights"):
        describe(Settings(name=str(tmp_path)))
    with pytest.raises(DataError, match="no such folder"):
        describe(Settings(name=str(tmp_path / "nothing")))
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"no config\.json"):
        describe(Settings(name=str(tmp_path)))
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    with pytest.raises(DataError, match="no causal language model that transformers can load"):
        build(Settings(name=str(tmp_path)), small, 0)


def test_quantised_weights_say_what_they_need(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(name=str(llama), gguf="weights.gguf")
    monkeypatch.setattr(pretrained, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=r"weights\.gguf, transformers needs: pip install gguf accelerate"):
        describe(settings)
    monkeypatch.setattr(pretrained, "find_spec", lambda package: "here")
    with pytest.raises(DataError, match=r"expected weights\.gguf"):
        describe(settings)


def test_weights_that_are_missing_are_not_drawn(llama: Path, tmp_path: Path, small: Vocabulary) -> None:
    from safetensors.torch import load_file, save_file

    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"missing or of another size: model\.norm\.weight"):
        build(Settings(name=str(tmp_path)), small, 0)


# --------------------------------------------------------------------------------------------------------------
# The network

_WATCHED = """
import json, socket, sys
def refuse(*arguments, **options):
    raise SystemExit(f"the network was asked: {arguments}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from clray.language.models import Settings, build, describe, vocabulary
settings = Settings(**json.loads(sys.argv[1]))
words = vocabulary(settings, ["it is raining", "it is"] * 3, describe(settings, fetch=True))
print(sum(p.numel() for p in build(settings, words, 0).parameters()))
"""


@pytest.mark.parametrize("kind", ["scratch", pytest.param("folder", marks=pytest.mark.slow)])
def test_the_network_is_not_asked_for_what_is_here(kind: str, llama: Path) -> None:
    settings = SMALL if kind == "scratch" else {"name": str(llama)}
    done = subprocess.run([sys.executable, "-c", _WATCHED, json.dumps(settings)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
    assert done.stderr == ""  # no bars, no lists of keys


def test_without_leave_the_network_is_not_asked_for_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(DataError, match=r"someone/nothing.*not here.*lamol/models/someone/nothing"):
        describe(Settings(name="someone/nothing"))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unreachable(*arguments: Any, **options: Any) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it is tried again and again"))
    with pytest.raises(DataError, match="no connection") as raised:
        describe(Settings(name="someone/nothing"), fetch=True)
    assert len(str(raised.value).splitlines()) == 1


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="neither a folder nor a name"):
        pretrained.locate("gpt 2!")


# --------------------------------------------------------------------------------------------------------------
# Declared


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"width": 30, "heads": 4}, "heads"),
        ({"gguf": "model.gguf"}, "gguf"),
        ({"name": "gpt2", "layers": 12}, "layers: only name: scratch"),
        ({"vocabulary_size": 100}, "vocabulary_size"),
        ({"depth": 3}, "depth"),
        ({"name": ""}, "name"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**declared)


def test_settings_can_be_declared_in_full() -> None:
    settings = Settings(name="gpt2")
    assert Settings(**settings.model_dump(mode="json")) == settings


def test_what_a_scratch_model_is_made_of_is_told() -> None:
    found = describe(Settings(**SMALL))
    assert (found["name"], found["source"]) == ("scratch", "scratch")
    assert "random weights" in found["partial"]
    assert found["fingerprint"] != describe(Settings())["fingerprint"]


def test_a_scratch_model_can_have_gpt2s_vocabulary() -> None:
    expected = lamol_vocabulary()
    settings = Settings(**{**SMALL, "vocabulary_size": 4096}, vocabulary="gpt2")
    found = vocabulary(settings, [], describe(settings))
    found.add("__gen__")
    assert found.fingerprint == expected.fingerprint
    assert describe(settings)["source"] == "CLRAY_DATA"
    assert build(settings, found, 0).lm_head.weight.shape == (50261, 16)


def test_importing_and_declaring_load_neither_torch_nor_transformers() -> None:
    program = "import sys; from clray.language.models import Settings; Settings();"
    program += (
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'ray', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_that_sees_what_comes_later_is_refused(tmp_path: Path) -> None:
    """``transformers`` loads BERT as if it were a decoder, and only warns."""
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertLMHeadModel(BertConfig(vocab_size=300, max_position_embeddings=32, **sizes)).save_pretrained(tmp_path / "bert")
    with pytest.raises(DataError, match="not a causal language model: its bert attends to later tokens"):
        build(Settings(name=str(tmp_path / "bert")), stream_vocabulary(TEXTS, 280), 0)


# --------------------------------------------------------------------------------------------------------------
# Nothing that a model's folder holds is run


class _Told:
    """Pickled, it would have a file made by whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def _pickled(folder: Path, llama: Path, weights: dict[str, Any]) -> Path:
    """The model with its weights as an older one has them."""
    shutil.copytree(llama, folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_read_as_tensors_alone(llama: Path, tmp_path: Path, small: Vocabulary) -> None:
    from safetensors.torch import load_file

    weights = load_file(llama / "model.safetensors")
    folder = _pickled(tmp_path / "plain", llama, weights)
    assert _same(build(Settings(name=str(folder)), small, 0), build(Settings(name=str(llama)), small, 0))
    evil = _pickled(tmp_path / "evil", llama, {**weights, "more": _Told(tmp_path / "was_here")})
    with pytest.raises(DataError, match=r"evil: no causal language model that transformers can load"):
        build(Settings(name=str(evil)), small, 0)
    assert not (tmp_path / "was_here").exists()


def test_safetensors_are_read_where_pickles_lie_beside_them(llama: Path, tmp_path: Path, small: Vocabulary) -> None:
    shutil.copytree(llama, tmp_path / "both")
    torch.save({"more": _Told(tmp_path / "was_here")}, tmp_path / "both" / "pytorch_model.bin")
    build(Settings(name=str(tmp_path / "both")), small, 0)
    assert not (tmp_path / "was_here").exists()


def test_code_in_a_models_folder_is_not_run(llama: Path, tmp_path: Path, small: Vocabulary) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(llama, folder)
    code = f"from pathlib import Path\nPath({str(tmp_path / 'was_here')!r}).touch()\nclass C: pass\n"
    (folder / "own.py").write_text(code)
    own = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.C"}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "C", "auto_map": {"AutoTokenizer": ["own.C", "own.C"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match="coded: no causal language model"):
        build(Settings(name=str(folder)), small, 0)
    with contextlib.suppress(DataError):
        of_model(str(folder))
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "x" * 5_000, "a\0b"])
def test_a_name_that_no_folder_can_have_is_one_sentence(name: str) -> None:
    with pytest.raises(DataError):
        pretrained.locate(name)
