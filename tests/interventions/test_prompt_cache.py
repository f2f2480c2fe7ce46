"""A kept prompt changes no token, and saves the blocks below the first intervention."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

import interp_transfer as it
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.prompt_cache import PROMPTS, PromptCache
from interp_transfer.interventions.streaming import TokenStream
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES, LAYERS

PROMPT = "User: Where is Umberfin, in the north or in the south?\nAssistant:"
SITE = "blocks.2.hook_resid_pre"


def tokens_of(model: Any, prompt: str, steer: list[Intervention], prompts: PromptCache | None, new: int = 10) -> list[int]:
    ids, row = tokenize(model, [prompt]), []
    stream = TokenStream(model, ids, steer, prompts=prompts)
    for _ in range(new):
        stream.advance(lambda token: bool(row.extend(token)))
    stream.close()
    return row


def vector(model: Any, site: str = SITE) -> it.SteeringVector:
    direction = 3 * torch.randn(int(model.cfg.d_model), generator=torch.Generator().manual_seed(0))
    return it.SteeringVector(direction, site, it.identity(model))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_tokens_are_those_of_generate(family: str, positions: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    prompts = PromptCache(model)
    for strength in (0.0, 1.0, -2.0, 1.0):
        steer = [vector(model).add(strength, positions)] if strength else []
        [right] = generate_tokens(model, [PROMPT], *steer, max_new_tokens=10, progress=False, eos_token_id=None)
        row = tokens_of(model, PROMPT, steer, prompts, len(right))
        assert row == right, strength


def test_only_the_blocks_from_the_first_intervention_on_read_the_prompt_again(
    wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, columns = wrapped("qwen2"), []
    prompts, n = PromptCache(model), len(tokenize(model, [PROMPT])[0])
    forward = Qwen2MLP.forward
    monkeypatch.setattr(Qwen2MLP, "forward", lambda self, x: columns.append(x.shape[1]) or forward(self, x))

    def read(*steer: Intervention, prompt: str = PROMPT) -> list[int]:
        columns.clear()
        tokens_of(model, prompt, list(steer), prompts, 1)
        return sorted(columns)

    read(vector(model).add(1.0))
    assert read(vector(model).add(2.0)) == [1] * LAYERS + [n - 1] * (LAYERS - 2)
    assert read() == [1] * LAYERS
    assert read(vector(model, "blocks.0.hook_resid_pre").add(1.0)) == [n] * LAYERS  # nothing is below
    for k in range(PROMPTS):
        read(prompt=f"{PROMPT} {k}")
    assert read() == [1] * LAYERS + [n - 1] * LAYERS  # it was the oldest


def test_what_cannot_be_used_again_is_read_anew(wrapped: Callable[[str], Any], folder: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, ids = PromptCache(model), torch.tensor(tokenize(model, [PROMPT]))
    follow = it.follow(model, SITE, SITE)
    assert prompts.get(ids, [follow]) is None and prompts.get(ids[:, :1], []) is None
    assert prompts.get(torch.cat([ids, ids]), []) is None and prompts.get(ids, []) is not None
    with it.applied(model, vector(model).add(1.0)):
        assert prompts.get(ids, []) is None  # its hooks would be missed
        model(ids)
    half = it.load_model(str(folder("qwen2")), dtype="bfloat16", device="cpu")
    assert PromptCache(half).get(ids, []) is None
