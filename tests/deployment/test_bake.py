"""Baked folders against the model under the interventions, token for token, in plain transformers."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_transfer as it
from interp_transfer.deployment import bake as bake_module
from interp_transfer.deployment import rewrite
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.transforms import Ablate, Add, MeanAblate
from interp_transfer.io import check_digest, parse_json
from interp_transfer.models.sites import RESIDUAL_WRITES
from tests.architectures import script
from tests.checkpoints import TEXTS, byte_tokenizer, hooked_transformer, hooks_of, make_checkpoint, raw_model

PROMPTS = ("the cat sat on a mat, far", "a dog: 12")
NEW = 12
CHANGES = ("ablation", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out")
NORM, EXPERTS, SITE, DIFFERS = "a norm", "experts write before it", "site", "differ from the intervention's by"
NO_BIAS = "peft gives .* none"
OWN, LLAMA, ADAPTER = "own class", "LlamaForCausalLM", "adapter"

EXPECTED: dict[str, tuple[str, ...]] = {
    "llama": (OWN, OWN, OWN, OWN, OWN),
    "mistral": (OWN, OWN, ADAPTER, ADAPTER, ADAPTER),  # with a sliding window it is no Llama
    "mixtral": (OWN, OWN, EXPERTS, ADAPTER, EXPERTS),
    "qwen2": (OWN, OWN, LLAMA, LLAMA, LLAMA),
    "qwen2_moe": (OWN, OWN, EXPERTS, ADAPTER, EXPERTS),
    "qwen3": (OWN, OWN, ADAPTER, OWN, ADAPTER),
    "qwen3_moe": (OWN, OWN, EXPERTS, OWN, EXPERTS),
    "qwen3_next": (SITE, OWN, EXPERTS, SITE, EXPERTS),
    "gemma": (OWN, OWN, ADAPTER, OWN, ADAPTER),
    "gemma2": (NORM, OWN, NORM, NORM, NORM),
    "gemma3_text": (NORM, OWN, NORM, NORM, NORM),
    "gemma4_text": ("would leave", DIFFERS, NORM, NORM, NORM),
    "gpt2": (OWN, OWN, OWN, OWN, OWN),
    "gpt_neox": (OWN, OWN, OWN, OWN, OWN),
    "gptj": (OWN, OWN, OWN, ADAPTER, OWN),
    "gpt_oss": (OWN, OWN, OWN, OWN, OWN),
    "olmo2": (NORM, OWN, NORM, NORM, NORM),
    "olmo3": (NORM, OWN, NORM, NORM, NORM),
    "phi": (OWN, OWN, OWN, OWN, OWN),
    "phi3": (OWN, OWN, ADAPTER, ADAPTER, ADAPTER),
    "granite": (OWN, OWN, OWN, OWN, OWN),
    "glm4": (NORM, OWN, NORM, NORM, NORM),
    "smollm3": (OWN, OWN, OWN, OWN, OWN),
    "starcoder2": (OWN, OWN, OWN, OWN, OWN),
    "opt": (OWN, OWN, OWN, OWN, OWN),
    "bloom": (NORM, NORM, OWN, OWN, OWN),
    "falcon": (OWN, OWN, OWN, OWN, OWN),
    "falcon_h1": ("would leave", OWN, OWN, OWN, OWN),
    "hunyuan_v1_dense": (SITE, OWN, ADAPTER, SITE, ADAPTER),
    "cohere": (SITE, OWN, ADAPTER, SITE, ADAPTER),
    "deepseek_v2": (SITE, OWN, OWN, SITE, OWN),
    "llama4_text": (OWN, OWN, ADAPTER, OWN, ADAPTER),
    "ministral3": (OWN, OWN, ADAPTER, ADAPTER, ADAPTER),
    "qwen3_5_text": (SITE, OWN, ADAPTER, SITE, ADAPTER),
    "qwen3_5_moe_text": (SITE, OWN, EXPERTS, SITE, EXPERTS),
    "olmo": (OWN, OWN, ADAPTER, OWN, ADAPTER),
    "olmo_hybrid": ("is not known here", OWN, ADAPTER, NORM, ADAPTER),
    "olmoe": (OWN, OWN, EXPERTS, OWN, EXPERTS),
    "granitemoe": (OWN, OWN, EXPERTS, OWN, EXPERTS),
    "glm4_moe": (OWN, OWN, NO_BIAS, ADAPTER, NO_BIAS),
    "cohere2": (SITE, OWN, ADAPTER, SITE, ADAPTER),
    "deepseek_v3": (SITE, OWN, NO_BIAS, SITE, NO_BIAS),
    "ernie4_5": (OWN, OWN, OWN, OWN, OWN),
    "exaone4": (NORM, OWN, NORM, NORM, NORM),
    "seed_oss": (OWN, OWN, OWN, OWN, OWN),
    "minimax_m2": (OWN, OWN, EXPERTS, ADAPTER, EXPERTS),
    "nemotron": (OWN, OWN, OWN, OWN, OWN),
    "nemotron_h": (SITE, OWN, NORM, SITE, SITE),
    "lfm2": (OWN, OWN, ADAPTER, ADAPTER, ADAPTER),
    "apertus": (OWN, OWN, ADAPTER, OWN, ADAPTER),
    "stablelm": (SITE, OWN, ADAPTER, SITE, ADAPTER),
}
"""For each of ``CHANGES``: what is written, or words of the refusal."""
AT_ONCE = ("llama", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox", "gpt_oss", "gemma2")
"""Kinds that are tried in every run of the tests; the others in the slow ones."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The tiny model of a kind, loaded from a folder."""
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def get(kind: str) -> Any:
        script.tiny(kind, **script.ARCHITECTURES[kind]).save_pretrained(root / kind)
        script.tokenizer().save_pretrained(root / kind)
        return it.load_model(root / kind, device="cpu")

    return get


def vector(model: Any, site: str = "blocks.2.hook_resid_pre", seed: int = 0) -> it.SteeringVector:
    direction = torch.randn(int(model.cfg.d_model), generator=torch.Generator().manual_seed(seed))
    return it.SteeringVector(direction, site, it.identity(model))


def greedy(model: Any, text: str, *steer: it.Intervention) -> list[int]:
    """Tokens under interventions."""
    return generate_tokens(model, [text], *steer, max_new_tokens=NEW, min_new_tokens=NEW, progress=False)[0]


def plain_greedy(model: Any, ids: list[int]) -> list[int]:
    """Tokens of transformers' own generation."""
    new = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **new)
    return out[0, len(ids) :].tolist()


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def same_tokens(model: Any, folder: Path, *steer: it.Intervention) -> bool:
    """Whether plain transformers gives the tokens of the steered model, some of which are not those of the unsteered one."""
    alone, tokenizer = plain(folder), AutoTokenizer.from_pretrained(folder)
    steered = [greedy(model, text, *steer) for text in PROMPTS]
    assert [plain_greedy(alone, tokenizer(text)["input_ids"]) for text in PROMPTS] == steered
    return steered != [greedy(model, text) for text in PROMPTS]


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed", "ignore:transformer-lens computes something else")
@pytest.mark.parametrize(
    "kind", [kind if kind in AT_ONCE else pytest.param(kind, marks=pytest.mark.slow) for kind in script.ARCHITECTURES]
)
def test_plain_transformers_gives_the_tokens_of_the_steered_model(tiny: Any, tmp_path: Path, kind: str) -> None:
    model, changed = tiny(kind), 0
    for change, expected in zip(CHANGES, EXPECTED[kind], strict=True):
        ablates = change == "ablation"
        steer = vector(model).ablate(everywhere=True) if ablates else vector(model, change).add(0.7)
        if expected not in (OWN, LLAMA, ADAPTER):
            with pytest.raises(ValueError, match=expected):
                it.bake(model, steer, tmp_path / change)
            continue
        baked = it.bake(model, steer, tmp_path / change)
        own = model.original_model.config.architectures[0]
        assert (baked.form, baked.architecture) == {
            OWN: ("weights", own), LLAMA: ("weights", LLAMA), ADAPTER: ("adapter", own)
        }[expected]  # fmt: skip
        assert baked.difference < 1e-5
        changed += same_tokens(model, tmp_path / change, steer)
        if change == "blocks.2.hook_resid_pre":
            again = it.load_model(tmp_path / change, device="cpu")
            assert it.identity(again).fingerprint != it.identity(model).fingerprint
    assert changed or kind in ("gemma4_text",)
    assert not [hook for hook in hooks_of(model) if "ScaledResidualBlockBridge" not in hook]  # Granite's bridge has its own
    assert not list(tmp_path.glob(".*"))


def test_a_projection_is_made_of_every_weight_that_writes(wrapped: Any, tmp_path: Path) -> None:
    model, folder = wrapped("llama"), tmp_path / "out"
    direction = vector(model)
    it.bake(model, direction.ablate(everywhere=True), folder)
    unit = direction.direction / direction.norm
    weights = load_file(folder / "model.safetensors")
    writes = [
        w.T if "embed" in name else w
        for name, w in weights.items()
        if "down_proj" in name or "o_proj" in name or "embed" in name
    ]
    assert len(writes) == 9 and all((unit @ w).abs().max() < 1e-6 for w in writes)
    before = raw_model(Path(model.original_model.name_or_path)).state_dict()
    rest = {name for name in weights if torch.equal(weights[name], before[name])}
    assert len(rest) == len(weights) - 9


def test_an_addition_changes_one_bias(wrapped: Any, tmp_path: Path) -> None:
    model = wrapped("llama")
    it.bake(model, vector(model).add(-1.5), tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    biases = {name: w for name, w in weights.items() if name.endswith("bias") and w.any()}
    assert list(biases) == ["model.layers.1.mlp.down_proj.bias"]
    torch.testing.assert_close(biases["model.layers.1.mlp.down_proj.bias"], -1.5 * vector(model).direction)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["mlp_bias"] is True and config["attention_bias"] is False


def test_tied_embeddings_are_untied_only_where_they_change(wrapped: Any, tmp_path: Path) -> None:
    model = wrapped("gpt2")
    wte = raw_model(Path(model.original_model.name_or_path)).lm_head.weight  # type: ignore[union-attr]
    it.bake(model, vector(model).ablate(everywhere=True), tmp_path / "ablated")
    ablated = plain(tmp_path / "ablated")
    assert not ablated.config.tie_word_embeddings and torch.equal(ablated.lm_head.weight, wte)
    assert not torch.equal(ablated.transformer.wte.weight, wte)
    it.bake(model, vector(model, "blocks.0.hook_resid_pre").add(1.0), tmp_path / "added")  # to the positions
    assert plain(tmp_path / "added").config.tie_word_embeddings


def test_several_interventions(wrapped: Any, tmp_path: Path) -> None:
    model = wrapped("qwen2")
    removed = vector(model, seed=1)
    unit = removed.direction / removed.norm
    flat = vector(model, "blocks.1.hook_attn_out", seed=2)
    flat = it.SteeringVector(flat.direction - (flat.direction @ unit) * unit, flat.site, flat.model)
    steer = [
        vector(model, "blocks.0.hook_resid_pre").add(0.5),  # before the ablation, which removes a part of it
        vector(model, "blocks.3.hook_resid_pre", seed=3).add(0.5),
        removed.ablate(everywhere=True),
        flat.add(-1.0),
        flat.add(0.5),
    ]
    assert it.bake(model, steer, tmp_path / "out").architecture == LLAMA
    assert same_tokens(model, tmp_path / "out", *steer)


def test_one_vector_in_every_block(wrapped: Any, tmp_path: Path) -> None:
    model = wrapped("llama")
    steer = it.Intervention("blocks.*.hook_resid_pre", Add(vector(model).direction, 0.2), model=it.identity(model))
    it.bake(model, steer, tmp_path / "out")
    assert same_tokens(model, tmp_path / "out", steer)


def test_where_rounding_is_large_both_are_compared_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = it.load_model(make_checkpoint(tmp_path / "base", "llama", dtype=torch.bfloat16), device="cpu")
    hf, dtypes, measure = model.original_model, [], bake_module._difference  # pyright: ignore[reportAttributeAccessIssue]
    before = {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in hf.state_dict().items()}

    def difference(*args: Any) -> float:
        dtypes.append(hf.dtype)
        return measure(*args) if len(dtypes) > 1 else 0.1

    monkeypatch.setattr(bake_module, "_difference", difference)
    vector = it.SteeringVector(torch.arange(16.0) / 8, "blocks.2.hook_resid_pre", it.identity(model))
    baked = it.bake(model, vector.ablate(everywhere=True), tmp_path / "out")
    assert dtypes == [torch.bfloat16, torch.float32] and baked.difference < 0.02
    assert {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in hf.state_dict().items()} == before
    assert {w.dtype for w in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_in_bfloat16_the_folder_is_bfloat16(tmp_path: Path, family: str) -> None:
    model = it.load_model(make_checkpoint(tmp_path / "base", family, dtype=torch.bfloat16), device="cpu")
    for name, steer in (("add", vector(model).add(1.0)), ("ablate", vector(model).ablate(everywhere=True))):
        baked = it.bake(model, steer, tmp_path / name)
        assert baked.dtype == "bfloat16" and baked.difference < baked.bound == 0.05
        assert {w.dtype for w in load_file(tmp_path / name / "model.safetensors").values()} == {torch.bfloat16}


def test_the_folder_says_what_it_is(wrapped: Any, tmp_path: Path) -> None:
    model, folder = wrapped("llama"), tmp_path / "out"
    model.original_model.config.gguf_sha256 = "ab"
    try:
        it.bake(model, vector(model).add(2.0), folder)
    finally:
        del model.original_model.config.gguf_sha256
    names = {file.name for file in folder.iterdir()}
    assert names >= {
        "README.md",
        "config.json",
        "generation_config.json",
        "interp_transfer.json",
        "model.safetensors",
        "tokenizer.json",
    }
    record = check_digest(parse_json((folder / "interp_transfer.json").read_text()))
    [addition] = record["interventions"]
    assert record["model"] == {"name": "llama", "fingerprint": it.identity(model).fingerprint}
    assert (addition["site"], addition["strength"]) == ("blocks.2.hook_resid_pre", 2.0)
    assert addition["norm"] == pytest.approx(2 * vector(model).norm)
    every = "".join(file.read_text() for file in folder.iterdir() if file.suffix in (".json", ".md"))
    assert "gguf_sha256" not in every and "quantization" not in every and str(tmp_path.parent) not in every


def state(model: Any) -> list[tuple[str, int, torch.Tensor]]:
    return [(name, id(p), p.detach().clone()) for name, p in model.original_model.named_parameters()]


def unchanged(model: Any, before: list[tuple[str, int, torch.Tensor]]) -> bool:
    now = state(model)
    return len(now) == len(before) and all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(now, before, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_the_model_is_left_as_it_was(wrapped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    model = wrapped(family)
    before, config, text = state(model), model.original_model.config.to_dict(), it.generate(model, [TEXTS[0]], max_new_tokens=5)
    for steer in (vector(model).add(1.0), vector(model).ablate(everywhere=True)):
        it.bake(model, steer, tmp_path / type(steer.transform).__name__)
        assert unchanged(model, before) and model.original_model.config.to_dict() == config

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bake_module, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        it.bake(model, vector(model).add(1.0), tmp_path / "out")
    assert unchanged(model, before) and not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    assert it.generate(model, [TEXTS[0]], max_new_tokens=5) == text


def test_a_wrong_folder_is_not_written(wrapped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped("llama")
    monkeypatch.setattr(rewrite, "_without", lambda tensor, *_: tensor)
    monkeypatch.setattr(rewrite, "_plus", lambda tensor, vector: tensor + 1.1 * vector.to(tensor))
    for steer in (vector(model).add(1.0), vector(model).ablate(everywhere=True)):
        with pytest.raises(ValueError, match=r"differ from the intervention's by [\d.]+% of their size"):
            it.bake(model, steer, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
def test_an_adapter_goes_on_its_base_and_is_not_baked_again(tiny: Any, tmp_path: Path) -> None:
    model = tiny("qwen3")
    steer = [vector(model).add(1.0), vector(model, "blocks.1.hook_mlp_out", seed=1).add(-2.0)]
    assert it.bake(model, steer, tmp_path / "out").form == "adapter"
    assert same_tokens(model, tmp_path / "out", *steer)
    size = (tmp_path / "out" / "adapter_model.safetensors").stat().st_size
    assert size < 4096 and not (tmp_path / "out" / "config.json").exists()
    again = it.load_model(tmp_path / "out", device="cpu")
    assert greedy(again, PROMPTS[0]) == greedy(model, PROMPTS[0], *steer)
    with pytest.raises(ValueError, match="has no such bias"):
        it.bake(again, vector(again, "blocks.1.hook_attn_out").add(1.0), tmp_path / "more")
    both = [vector(model).add(1.0), vector(model).ablate(everywhere=True)]
    with pytest.raises(ValueError, match="bake those alone, load that folder, and bake the addition into it"):
        it.bake(model, both, tmp_path / "more")
    it.bake(model, both[1], tmp_path / "ablated")
    ablated = it.load_model(tmp_path / "ablated", device="cpu")
    it.bake(ablated, both[0].__class__(both[0].site, both[0].transform), tmp_path / "both")
    assert not list(tmp_path.glob("more*"))


SITES = "blocks.2.hook_resid_pre"


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda v: v.add(1.0, "last"), "weights are the same at every token"),
        (lambda v: v.add(1.0, "prompt"), "weights are the same at every token"),
        (lambda v: v.ablate(), r"vector.ablate\(everywhere=True\)"),
        (lambda v: it.Intervention(RESIDUAL_WRITES[:2], Ablate(v.direction)), r"vector.ablate\(everywhere=True\)"),
        (lambda v: v.clamp(1.0), "through a norm"),
        (lambda v: v.add(1.0).when(v), "through a norm"),
        (lambda v: it.Intervention(v.site, lambda a: 2 * a), "through a norm"),
        (lambda v: it.Intervention(v.site, MeanAblate(v.direction)), "through a norm"),
        (lambda v: v.add(torch.ones(2)), "2 strengths, one for each text"),
        (lambda v: it.Intervention(v.site, Add(torch.ones(2, 16))), "2 directions, one for each text"),
        (lambda v: it.Intervention(v.site, Add(torch.ones(8))), "8 numbers does not fit d_model 16"),
        (lambda v: v.add(float("nan")), "a strength of nan"),
        (lambda v: v.add(float("inf")), "a strength of inf"),
        (lambda v: it.Intervention(v.site, Add(torch.full((16,), torch.nan))), "NaN or infinity"),
        (lambda v: it.Intervention(RESIDUAL_WRITES, Ablate(torch.zeros(16))), "norm zero"),
        (lambda v: it.Intervention("blocks.1.mlp.hook_post", Add(v.direction)), "not in the residual stream"),
        (lambda v: it.Intervention("blocks.9.hook_resid_pre", Add(v.direction)), "this model has 4 blocks"),
        (lambda v: it.Intervention("blocks.1.hook_resid_mid", Add(v.direction)), "can be read but not edited"),
        (lambda v: [], "there is nothing to bake"),
        (lambda v: [v.ablate(everywhere=True), v.add(1.0)], "give the addition before the ablation"),
        (
            lambda v: [it.add(it.SteeringVector(v.direction, "blocks.1.hook_resid_post", v.model)), v.ablate(everywhere=True)],
            "before",
        ),
        (lambda v: [v.ablate(everywhere=True), vector_like(v).ablate(everywhere=True)], "hooks remove them in turn"),
    ],
)
def test_what_weights_cannot_express_is_refused(wrapped: Any, tmp_path: Path, make: Any, hint: str) -> None:
    model = wrapped("llama")
    steer = make(vector(model))
    with pytest.raises(ValueError, match=hint) as error:
        it.bake(model, steer, tmp_path / "out")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def vector_like(v: it.SteeringVector) -> it.SteeringVector:
    return it.SteeringVector(v.direction + 1.0, v.site, v.model)


def test_other_models_and_folders_are_refused(wrapped: Any, folder: Any, tmp_path: Path) -> None:
    model, other = wrapped("llama"), wrapped("qwen2")
    with pytest.raises(ValueError, match="this intervention was made for"):
        it.bake(model, vector(other).add(), tmp_path / "out")
    old = hooked_transformer(folder("llama"))
    with pytest.raises(ValueError, match="has no transformers model inside"):
        it.bake(old, it.Intervention(SITES, Add(torch.ones(16))), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(ValueError, match="not an empty folder"):
        it.bake(model, vector(model).add(), tmp_path / "full")
    model.original_model.is_quantized = True
    try:
        with pytest.raises(ValueError, match="quantized"):
            it.bake(model, vector(model).add(), tmp_path / "out")
    finally:
        del model.original_model.is_quantized
    half = it.load_model(make_checkpoint(tmp_path / "half", "llama", dtype=torch.float16), device="cpu")
    with pytest.raises(ValueError, match="beyond torch.float16|NaN or infinity"):
        it.bake(half, vector(half).add(1e6), tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "full" / "mine").exists()


def test_an_adapter_needs_a_base_with_a_name(tmp_path: Path) -> None:
    hf = script.tiny("qwen3", **script.ARCHITECTURES["qwen3"])
    model = it.load_model(hf, tokenizer=byte_tokenizer())
    with pytest.raises(ValueError, match="an object without a folder"):
        it.bake(model, vector(model).add(), tmp_path / "out")
