"""Control vectors in llama.cpp itself: the same tokens and probabilities as our hooks on the same float32 weights."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.deployment.llama_cpp import UNUSABLE, write_control_vector
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.tokens import tokenize
from interp_transfer.vectors.exchange import to_gguf
from interp_transfer.vectors.vector import SteeringVector
from tests.checkpoints import CONTEXT, LAYERS, TEXTS, byte_tokenizer
from tests.gguf_files import CHAT, SHAPE, write_gguf

VOCABULARY, NEW = 300, 12
EXAMPLE = Path(__file__).parents[2] / "examples" / "llama_cpp.py"
_PIECES = [str(byte_tokenizer().decode([token])) for token in range(VOCABULARY)]
NOT_ASCII = [[token, False] for token, piece in enumerate(_PIECES) if not piece.isascii()]
"""For the first token: one that is half of a character gets no entry of its own."""
Answers = list[tuple[list[int], Tensor]]


def example() -> Any:
    spec = importlib.util.spec_from_file_location("llama_cpp_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file in float32; the checkpoint of the same weights is in the folder beside it."""
    root = tmp_path_factory.mktemp("llama_cpp")
    return write_gguf(root / "folder", root / "tiny.gguf", quantized=False)


@pytest.fixture(scope="module")
def model(file: Path) -> Any:
    return it.load_model(file.with_name("folder"), device="cpu")


@pytest.fixture(scope="module")
def llama_cpp(file: Path) -> Callable[..., Answers]:
    """Answers of llama.cpp to the texts, with all log-probabilities of their first tokens, under a command line."""
    xllamacpp = pytest.importorskip("xllamacpp")
    module = example()
    exact = {
        "n_ctx": CONTEXT,
        "cache_type_k": xllamacpp.ggml_type.GGML_TYPE_F32,
        "cache_type_v": xllamacpp.ggml_type.GGML_TYPE_F32,
        "flash_attn_type": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }

    def answers(*arguments: str) -> Answers:
        server = module.Server(file, *arguments, **exact)
        return [answer(server, text) for text in TEXTS]

    def answer(server: Any, text: str) -> tuple[list[int], Tensor]:
        body = {"prompt": text, "temperature": 0, "cache_prompt": False, "n_predict": 1, "n_probs": VOCABULARY}
        [entry] = server.post("/completion", **body, logit_bias=NOT_ASCII)["completion_probabilities"]
        logprobs = torch.full((VOCABULARY,), torch.nan)
        for candidate in entry["top_logprobs"]:
            logprobs[candidate["id"]] = candidate["logprob"]
        return server.generate(text, NEW), logprobs

    return answers


def here(model: Any, *interventions: Intervention) -> Answers:
    """The same of our hooks."""
    tokens = generate_tokens(model, TEXTS, *interventions, max_new_tokens=NEW)
    with torch.no_grad(), it.applied(model, *interventions):
        logits = [model(torch.tensor([ids]))[0, -1] for ids in tokenize(model, TEXTS)]
    return [(row, one.log_softmax(-1)) for row, one in zip(tokens, logits, strict=True)]


def assert_same(theirs: Answers, ours: Answers) -> None:
    for (tokens, logprobs), (own, expected) in zip(theirs, ours, strict=True):
        assert tokens == own
        torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-4)


def vector(model: Any, layer: int = 2, seed: int = 0) -> SteeringVector:
    direction = torch.randn(SHAPE["hidden_size"], generator=torch.Generator().manual_seed(seed))
    return SteeringVector(direction, f"blocks.{layer}.hook_resid_post", it.identity(model))


def far(one: Answers, other: Answers) -> bool:
    """Whether all texts have clearly other probabilities."""
    return all((a - b).abs().max() > 0.1 for (_, a), (_, b) in zip(one, other, strict=True))


def test_without_a_vector_llama_cpp_is_our_model(model: Any, llama_cpp: Callable[..., Answers]) -> None:
    assert_same(llama_cpp(), here(model))


@pytest.mark.parametrize("layer", range(1, LAYERS))
def test_a_control_vector_is_our_addition_at_the_same_block(
    layer: int, model: Any, llama_cpp: Callable[..., Answers], tmp_path: Path
) -> None:
    steer = vector(model, layer)
    theirs = llama_cpp("--control-vector", str(to_gguf(steer, tmp_path / "v.gguf", model)))
    assert_same(theirs, here(model, steer.add()))
    unsteered = here(model)
    assert far(theirs, unsteered), "the vector did nothing"
    for other in set(range(1, LAYERS)) - {layer}:
        assert far(theirs, here(model, vector(model, other).add())), "the block makes no difference"


@pytest.mark.parametrize("strength", [-1.0, 0.5, 2.0])
def test_strength_and_sign(strength: float, model: Any, llama_cpp: Callable[..., Answers], tmp_path: Path) -> None:
    steer = vector(model)
    plain, written = to_gguf(steer, tmp_path / "plain.gguf", model), tmp_path / "strong.gguf"
    theirs = llama_cpp("--control-vector-scaled", f"{plain}:{strength}")
    assert_same(theirs, here(model, steer.add(strength)))
    assert far(theirs, here(model, steer.add(-strength)))
    assert_same(llama_cpp("--control-vector", str(write_control_vector(steer.add(strength), written, model))), theirs)


def test_two_blocks_in_one_file_and_the_input_of_a_block(model: Any, llama_cpp: Callable[..., Answers], tmp_path: Path) -> None:
    early, late = vector(model, 1), replace(vector(model, 3, seed=1), site="blocks.3.hook_resid_pre")
    both = [early.add(1.5), late.add(-1.0)]
    path = str(write_control_vector(both, tmp_path / "v.gguf", model))
    assert_same(llama_cpp("--control-vector", path), here(model, *both))
    limited = llama_cpp("--control-vector", path, "--control-vector-layer-range", "1", "1")
    assert_same(limited, here(model, both[0]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.add(1.0, "last"), "is at some positions only.*at every token"),
        (lambda v: v.add(1.0, torch.ones(3, dtype=torch.bool)), "is at some positions only"),
        (lambda v: v.ablate(), "is a Ablate, whose change depends on the activation.*baked"),
        (lambda v: v.ablate(everywhere=True), "is a Ablate"),
        (lambda v: v.clamp(2.0), "is a Clamp"),
        (lambda v: v.add().when(v), "has a condition"),
        (lambda v: v.add(torch.ones(4)), "for each text"),
        (lambda v: Intervention(v.site, Add(v.direction.expand(4, -1))), "for each text"),
        (lambda v: v.add(float("nan")), "strength nan, adds numbers that are not finite"),
        (lambda v: replace(v, site="blocks.2.hook_mlp_out").add(), "added to the output of a block"),
        (lambda v: replace(v, site="blocks.*.hook_resid_post").add(), "output of block 0"),
        (lambda v: [v.add(), replace(v, site="blocks.3.hook_resid_pre").add()], "two vectors at the output of one block"),
        (lambda v: replace(v, model=replace(v.model, fingerprint="0" * 16)).add(), "was made for"),
    ],
)
def test_what_a_control_vector_cannot_do_is_refused(
    change: Callable[[Any], Any], reason: str, model: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        write_control_vector(change(vector(model)), tmp_path / "v.gguf", model)
    assert not list(tmp_path.iterdir())


def test_the_example_compares_both(
    file: Path, model: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    module = example()
    for name, value in {"TOKENS": 3, "CONTEXT": CONTEXT}.items():
        monkeypatch.setattr(module, name, value)
    chats = it.load_model(file.with_name("folder"), device="cpu", chat_template=CHAT)
    monkeypatch.setattr(module.it, "load_model", lambda _: chats)
    rows = [{"positive": f"yes {k}", "negative": f"no {k}", "split": "test" if k > 2 else "train"} for k in range(6)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    saved = vector(model).save(tmp_path / "v.safetensors")
    module.main(str(file), str(saved), "2.0", str(tmp_path / "pairs.jsonl"), "lacks:e", "3")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{condition}{program}" for condition in ("unsteered", "steered") for program in (", llama.cpp", ", here", "")
    ]
    assert all("n=3" in line for line in lines) and all("same answer 1.00" in line for line in lines[2::3])


@pytest.mark.parametrize("kind", UNUSABLE)
def test_architectures_that_llama_cpp_does_not_steer_are_refused(
    kind: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_model(model).config, "model_type", kind)
    with pytest.raises(ValueError, match=f"{kind}' .llama.cpp: (ignored|added to each of|no such model)"):
        write_control_vector(vector(model).add(), tmp_path / "v.gguf", model)


def test_an_architecture_that_was_not_tried_is_written_with_a_warning(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_model(model).config, "model_type", "brand_new")
    with pytest.warns(UserWarning, match="were not tried in llama.cpp with the architecture 'brand_new'"):
        write_control_vector(vector(model).add(), tmp_path / "v.gguf", model)
    assert (tmp_path / "v.gguf").is_file()
