"""Loading: one path for everything, fingerprints that tell models apart, errors that say what to do."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_transfer as it
from interp_transfer import plugins
from interp_transfer.activations.capture import forward
from interp_transfer.models.hooked_model import context_length, huggingface_model
from interp_transfer.models.hooked_transformer import as_hooked_transformer
from interp_transfer.models.identity import SAMPLES_PER_TENSOR, sampled_values
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of
from interp_transfer.plugins import KnownModel, Plugin
from tests.checkpoints import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    TEXTS,
    byte_tokenizer,
    change_config,
    change_weight,
    hooked_transformer,
    make_checkpoint,
    raw_model,
)

SITE = "blocks.2.hook_resid_pre"


def fingerprint(model: Any, **options: Any) -> str:
    return it.identity(it.load_model(model, **options)).fingerprint


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint that may be changed."""
    return Path(shutil.copytree(folder("qwen2"), tmp_path / "copy"))


# --- fingerprints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_another_dtype_in_memory_is_the_same_model(stored: torch.dtype, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "qwen2", dtype=stored)
    assert json.loads((path / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    found = {fingerprint(str(path), dtype=d) for d in ("float32", "bfloat16", torch.float16, "float64")}
    assert len(found) == 1


def test_where_it_lies_does_not_matter(folder: Callable[[str], Path], copy: Path) -> None:
    assert fingerprint(str(folder("qwen2"))) == fingerprint(copy) == fingerprint(str(copy), device="cpu")
    assert it.identity(it.load_model(copy)).name == str(copy)


@pytest.mark.parametrize("size", [1, 63, 64, 1000, 2**24, 2**24 + 1, 30522 * 768, 151936 * 896, 128256 * 4096])
def test_weights_of_any_size_are_sampled_from_the_first_value_to_the_last(size: int) -> None:
    """As large as the embeddings of BERT, Qwen2.5-0.5B and Llama-3.1-8B, without their memory."""
    assert len(sampled_values(torch.ones(1).expand(size))) == min(size, SAMPLES_PER_TENSOR)
    if size <= 30522 * 768:
        places = torch.arange(size, dtype=torch.int32)
        found = sampled_values(places)
        assert (found[0], found[-1]) == (0, size - 1)
        assert bool((found.diff() > 0).all())


def test_what_changes_the_model_changes_the_fingerprint(copy: Path) -> None:
    seen = [fingerprint(copy)]
    change_weight(copy)
    seen.append(fingerprint(copy))
    change_config(copy, rms_norm_eps=1e-3)
    seen.append(fingerprint(copy))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    assert tokenizer["model"]["merges"].pop()
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    seen.append(fingerprint(copy))
    assert len(set(seen)) == 4


def test_how_it_is_run_does_not(copy: Path) -> None:
    before = fingerprint(copy)
    change_config(copy, use_cache=False, transformers_version="9.9", output_attentions=True)
    assert fingerprint(copy) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bridge_that_the_user_made_is_the_same_model(family: str, folder: Callable[[str], Path]) -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    ours = fingerprint(str(folder(family)))
    booted = TransformerBridge.boot_transformers(str(folder(family)), device="cpu")
    assert it.load_model(booted) is booted
    hf: Any = raw_model(folder(family))
    tokenizer = AutoTokenizer.from_pretrained(folder(family))
    built = build_bridge_from_module(
        hf, hf.config.architectures[0], hf_config=hf.config, tokenizer=tokenizer, dtype=torch.float32
    )
    for theirs in (booted, built):
        assert it.identity(theirs).fingerprint == ours
        assert it.identity(theirs).processing == "none"
    again = it.load_model(str(folder(family)))
    vector = it.SteeringVector(torch.ones(16), SITE, it.identity(again))
    assert it.generate(booted, TEXTS, it.add(vector), max_new_tokens=2) == it.generate(
        again, TEXTS, it.add(vector), max_new_tokens=2
    )


def test_a_wrapper_that_adds_a_bos_is_the_same_model_too(tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    path = make_checkpoint(tmp_path, "llama")
    byte_tokenizer(bos=True).save_pretrained(path)
    ours = it.load_model(path)
    assert fingerprint(TransformerBridge.boot_transformers(str(path), device="cpu")) == it.identity(ours).fingerprint


def test_processed_weights_are_another_model(folder: Callable[[str], Path]) -> None:
    model: Any = it.load_model(str(folder("gpt2")))
    before = it.identity(model)
    model.enable_compatibility_mode(no_processing=True)
    assert it.identity(model) == before
    model = it.load_model(str(folder("gpt2")))
    vector = it.SteeringVector(torch.ones(16), SITE, it.identity(model))
    model.enable_compatibility_mode()
    after = it.identity(model)
    assert after.fingerprint != before.fingerprint and after.processing == "unknown"
    with pytest.raises(ValueError, match="was made for"):
        it.generate(model, TEXTS, it.add(vector), max_new_tokens=1)


def test_a_hooked_transformer_is_hashed_as_it_is(folder: Callable[[str], Path]) -> None:
    one, two = (hooked_transformer(folder("gpt2")) for _ in range(2))
    assert it.load_model(one) is one
    assert it.identity(one).fingerprint == it.identity(two).fingerprint
    assert it.identity(one).processing == "unknown"
    assert it.identity(one).fingerprint != fingerprint(str(folder("gpt2")))
    with torch.no_grad():
        two.W_E.add_(0.1)
    assert fingerprint(two) != it.identity(one).fingerprint


def test_tokenizers_have_fingerprints(folder: Callable[[str], Path], wrapped: Callable[[str], Any]) -> None:
    plain, same = wrapped("llama"), wrapped("gemma2")
    with_bos = it.load_model(str(folder("llama")), tokenizer=byte_tokenizer(bos=True))
    assert tokenizer_fingerprint(plain) == tokenizer_fingerprint(same)
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(with_bos), "a BOS makes other tokens"
    plain.tokenizer(TEXTS, padding=True)
    assert tokenizer_fingerprint(plain) == tokenizer_fingerprint(same), "how it was last called does not matter"


# --- tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_become_what_the_checkpoints_own_tokenizer_makes(
    family: str, folder: Callable[[str], Path], wrapped: Callable[[str], Any]
) -> None:
    model = wrapped(family)
    assert tokenize(model, TEXTS) == AutoTokenizer.from_pretrained(folder(family))(TEXTS)["input_ids"]
    assert context_length(model) == CONTEXT
    assert tokenize(model, []) == []
    with pytest.raises(ValueError, match="text 1 .'.*has no tokens"):
        tokenize(model, ["x", ""])


@pytest.mark.parametrize("bos", [False, True])
def test_a_tokenizer_made_in_memory_stays_as_it_is(bos: bool, folder: Callable[[str], Path]) -> None:
    tokenizer = deepcopy(byte_tokenizer(bos))
    tokenizer.init_kwargs.pop("add_bos_token", None)
    kept, specials, side = dict(tokenizer.init_kwargs), tokenizer.special_tokens_map, tokenizer.padding_side
    model = it.load_model(str(folder("llama")), tokenizer=tokenizer)
    assert tokenizer_of(model) is tokenizer and tokenizer.init_kwargs == kept
    assert tokenizer.special_tokens_map == specials and tokenizer.padding_side == side
    assert model.tokenizer.bos_token == ("<|begin|>" if bos else "<|end|>"), "transformer-lens' own calls need one"
    assert (tokenize(model, ["the"])[0][0] == tokenizer.bos_token_id) == bos


def test_a_missing_pad_token_is_made_up_for(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "gpt2", pad_token_id=None)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(path)
    model = it.load_model(path)
    assert tokenizer_of(model).pad_token == tokenizer.eos_token
    assert it.generate(model, TEXTS, max_new_tokens=3) == [it.generate(model, [text], max_new_tokens=3)[0] for text in TEXTS]


# --- where and how --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", torch.bfloat16])
def test_dtype(dtype: Any, folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder("qwen2")), dtype=dtype)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {p.dtype for p in huggingface_model(model).parameters()} == {kind} == {model.cfg.dtype}
    assert it.capture(model, TEXTS, SITE)[SITE].dtype == kind
    assert not huggingface_model(model).training


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_checkpoint_unless_another_is_named(stored: torch.dtype, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama", dtype=stored)
    for model in (it.load_model(path, device="cpu"), it.load_model(path, device_map={"": "cpu"})):
        assert it.capture(model, TEXTS, SITE)[SITE].dtype == stored == model.cfg.dtype


def test_a_dtype_or_device_that_is_missing(folder: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"device='cpu' .*does not compute in torch.float8_e4m3fn .*: give another device="):
        it.load_model(str(folder("qwen2")), device="cpu", dtype="float8_e4m3fn")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match=f"device='{device}' is missing"):
            it.load_model(str(folder("qwen2")), device=device)


def test_contradicting_options(folder: Callable[[str], Path], wrapped: Callable[[str], Any]) -> None:
    path = str(folder("qwen2"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_memory": {0: "1GB"}}, "max_memory=.* needs device_map="),
        ({"adapter": "x", "device_map": "auto"}, "adapter='x' is merged into whole weights"),
        ({"quantization_config": {}, "wrapper": "hooked_transformer"}, "with whole weights"),
    ]
    for options, match in cases:
        with pytest.raises(ValueError, match=match):
            it.load_model(path, **options)
    with pytest.raises(ValueError, match="revision= is for models that are loaded by name"):
        it.load_model(wrapped("qwen2"), revision="main")


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2"])
def test_device_map(family: str, folder: Callable[[str], Path], wrapped: Callable[[str], Any]) -> None:
    here, raw = wrapped(family), raw_model(folder(family))
    base = raw.base_model_prefix
    inside = {f"{base}.{name}": "cpu" for name, _ in raw.base_model.named_children()}
    blocks = f"{base}.h" if family == "gpt2" else f"{base}.layers"
    del inside[blocks]
    halves = {f"{blocks}.{n}": "cpu" if n < 2 else "disk" for n in range(LAYERS)}
    spread = {**inside, **halves, **{name: "cpu" for name, _ in raw.named_children() if name != base}}
    expected, made = it.capture(here, TEXTS, SITE)[SITE], it.generate(here, TEXTS, max_new_tokens=3)
    stored = {name: "disk" for name in spread}
    for device_map in ({"": "cpu"}, spread, stored):
        if family == "gpt2" and "disk" in device_map.values():
            # transformer-lens splits the joint projection of queries, keys and values when it wraps.
            with pytest.raises(ValueError, match="cannot wrap .* disk offload"):
                it.load_model(str(folder(family)), device_map=device_map)
            continue
        model = it.load_model(str(folder(family)), device_map=device_map)
        assert it.identity(model).fingerprint == it.identity(here).fingerprint
        torch.testing.assert_close(it.capture(model, TEXTS, SITE)[SITE], expected, atol=1e-5, rtol=1e-5)
        assert it.generate(model, TEXTS, max_new_tokens=3) == made
        assert any(p.is_meta for p in huggingface_model(model).parameters()) == ("disk" in device_map.values())


# --- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "match"),
    [
        ("tiny-lama-a", {}, "unknown model 'tiny-lama-a': did you mean 'tiny-llama-a', 'tiny-llama-b'"),
        ("nothing-like-it", {}, "cannot load 'nothing-like-it': it is no known model"),
        ("./no/such/folder", {}, "no folder './no/such/folder'"),
        ("nobody/nothing-of-this-name", {}, "cannot load 'nobody/nothing-of-this-name'.*downloaded copy"),
        ("tiny-llama-b", {}, "the model 'tiny-llama-b' is not in '/nowhere': build it with"),
        (7, {}, "cannot load a int"),
        (None, {"dtype": "float33"}, "unknown dtype 'float33': use 'auto'"),
        (None, {"dtype": "int8"}, "unknown dtype 'int8'"),
        (None, {"dtype": torch.int8}, "unknown dtype torch.int8"),
        (None, {"device": "cpu", "device_map": "auto"}, "contradict each other"),
    ],
)
def test_refusals(
    model: Any, options: dict[str, Any], match: str, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: KnownModel(name, Path("/nowhere")) for name in ("tiny-llama-a", "tiny-llama-b")}
    monkeypatch.setattr(plugins, "plugins", lambda: {"llamas": Plugin(models=lambda: known)})
    with pytest.raises(ValueError, match=match):
        it.load_model(str(folder("qwen2")) if model is None else model, **options)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no config.json"):
        it.load_model(tmp_path)


@pytest.mark.parametrize("left", [0, 20, 3000])
def test_damaged_weights(left: int, copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(ValueError, match=f"cannot load the model in '{copy}'"):
        it.load_model(copy)


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_missing_files(missing: str, copy: Path) -> None:
    (copy / missing).unlink()
    with pytest.raises(ValueError, match="cannot load the model in"):
        it.load_model(copy)


def test_damaged_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot load the model in"):
        it.load_model(copy)


def test_weights_that_do_not_fit_the_config(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    for changes, match in (
        ({"hidden_size": 32}, "cannot load the model in"),
        ({"hidden_size": 16, "num_hidden_layers": 6}, r"weights are missing: model.layers.4.input_layernorm.weight"),
        ({"num_hidden_layers": 4, "num_attention_heads": "four"}, "cannot load the model in"),
    ):
        change_config(path, **changes)
        with pytest.raises(ValueError, match=match):
            it.load_model(path)


def test_an_architecture_that_cannot_be_wrapped(copy: Path) -> None:
    change_config(copy, architectures=["NobodyForCausalLM"])
    with pytest.raises(ValueError, match="cannot wrap the architecture 'NobodyForCausalLM'"):
        it.load_model(copy)


def test_the_folder_is_an_ordinary_one(folder: Callable[[str], Path]) -> None:
    assert AutoModelForCausalLM.from_pretrained(folder("qwen2")).config.model_type == "qwen2"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_hooked_transformer_on_request_is_the_same_model(family: str, folder: Callable[[str], Path]) -> None:
    bridge = it.load_model(str(folder(family)), device="cpu")
    older = it.load_model(str(folder(family)), device="cpu", wrapper="hooked_transformer")
    assert type(older).__name__ == "HookedTransformer"
    assert it.identity(older) == it.identity(bridge)
    assert older.tokenizer.get_vocab() == bridge.tokenizer.get_vocab()


def test_scaled_rotary_embeddings_are_converted_or_refused(tmp_path: Path) -> None:
    """llama3 scaling, as Llama 3.1 and later have it, changes what the model says; other kinds are not converted."""
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    path = str(make_checkpoint(tmp_path / "scaled", "llama", rope_parameters=scaled))
    bridge, older = (it.load_model(path, device="cpu", wrapper=wrapper) for wrapper in ("bridge", "hooked_transformer"))
    plain = it.load_model(str(make_checkpoint(tmp_path / "plain", "llama")), device="cpu", wrapper="hooked_transformer")
    rows = [it.capture(model, TEXTS, "blocks.2.hook_resid_pre")["blocks.2.hook_resid_pre"] for model in (bridge, older, plain)]
    torch.testing.assert_close(rows[1], rows[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(rows[2], rows[0], atol=1e-3)
    other = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    path = str(make_checkpoint(tmp_path / "other", "llama", rope_parameters=other))
    with pytest.raises(ValueError, match="'linear' is not converted"):
        it.load_model(path, device="cpu", wrapper="hooked_transformer")


def test_what_cannot_be_a_hooked_transformer_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown wrapper 'hooked': .*there are bridge, hooked_transformer"):
        it.load_model(str(folder("llama")), wrapper="hooked")
    with pytest.raises(ValueError, match="lives on one device"):
        it.load_model(str(folder("llama")), wrapper="hooked_transformer", device_map="auto")
    odd = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    path = str(make_checkpoint(tmp_path / "odd", "gpt_neox", rope_parameters=odd))
    with pytest.raises(ValueError, match="an odd number"):
        it.load_model(path, device="cpu", wrapper="hooked_transformer")
    mistral = transformers.MistralConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2
    )
    with pytest.raises(ValueError, match="MistralForCausalLM is not converted"):
        as_hooked_transformer(transformers.MistralForCausalLM(mistral), None, torch.float32)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
        ("gpt_neox", {"attention_bias": False}),
    ],
)
def test_what_a_hooked_transformer_would_lose_is_refused(tmp_path: Path, family: str, changes: dict) -> None:
    path = str(make_checkpoint(tmp_path / family, family, **changes))
    with pytest.raises(ValueError, match="not converted to a HookedTransformer"):
        it.load_model(path, device="cpu", wrapper="hooked_transformer")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fast", [True, False])
def test_a_dtype_that_the_cpu_has_no_instructions_for_is_warned_of(
    fast: bool, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_checkpoint(tmp_path / "model", "llama", dtype=dtype)
    for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda: fast)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        it.load_model(path, device="cpu")
        it.load_model(path, device="cpu", dtype=dtype)  # chosen on purpose
    told = [str(warning.message) for warning in caught if "no instructions" in str(warning.message)]
    assert len(told) == (1 if not fast and dtype != torch.float32 else 0)
    assert all(str(dtype) in one and "dtype='float32'" in one and "\n" not in one for one in told)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_buffers_that_no_checkpoint_holds_have_the_values_of_the_dtype(
    tmp_path: Path, stored: torch.dtype, dtype: torch.dtype
) -> None:
    folder = make_checkpoint(tmp_path / "m", "gemma2", dtype=stored, hidden_size=20)  # its scale, 20 ** 0.5, is rounded
    tokens = torch.tensor([[5, 9, 33]])
    with torch.no_grad():
        expected = raw_model(folder, dtype=dtype)(tokens).logits
        loaded: Any = it.load_model(folder, dtype=dtype, device="cpu")
        assert torch.equal(forward(loaded, tokens), expected)
    assert it.identity(loaded).fingerprint == it.identity(it.load_model(folder, device="cpu")).fingerprint


def test_transformer_lens_4_has_no_hooked_transformer(folder, monkeypatch):
    monkeypatch.delattr("transformer_lens.HookedTransformer")
    monkeypatch.setitem(sys.modules, "transformer_lens.HookedTransformer", None)  # the module of the same name
    with pytest.raises(ValueError, match="^transformer-lens 4 has no HookedTransformer: load the model with wrapper='bridge'"):
        it.load_model(folder("llama"), device="cpu", wrapper="hooked_transformer")
