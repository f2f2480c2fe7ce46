"""Real models from the user's cache, which `interp-transfer models get NAME` fills; without them these tests are skipped."""

import re
import time
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.sources import sources
from tests.real import real_model

pytestmark = [pytest.mark.real, pytest.mark.slow]
NAMES = [name for name, source in sources().items() if source.architecture.endswith("ForCausalLM")]


@pytest.mark.parametrize("name", NAMES)
def test_a_real_model_knows_the_capital_of_france(name: str) -> None:
    model: Any = real_model(name)
    if model.tokenizer.chat_template is None:
        prompt, answer = "Paris is the capital of", "France"
    else:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = "Paris"
        prompt = model.tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert answer in it.generate(model, [prompt], max_new_tokens=16)[0]
    assert model.cfg.dtype == torch.bfloat16
    parameters = sum(p.numel() for p in huggingface_model(model).parameters() if p.any())  # the bridge adds biases of zero
    assert parameters == pytest.approx(sources()[name].parameters, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_load_takes_seconds_and_gives_the_same_model(name: str) -> None:
    first = it.identity(real_model(name))
    begun = time.monotonic()
    again = it.identity(it.load_model(name))
    assert time.monotonic() - begun < 60
    assert again == first and re.fullmatch(r"[0-9a-f]{16}", first.fingerprint)


def test_a_real_vector_steers() -> None:
    """A vector of opposite weathers moves the next word from one towards the other."""
    model = real_model("smollm2-135m-instruct")
    pairs = [(f"In {place} it is sunny and hot today.", f"In {place} it is cold and snowy today.") for place in PLACES]
    vector = it.extract(model, pairs, "blocks.15.hook_resid_pre")
    ids = torch.tensor([model.tokenizer("The weather outside is very")["input_ids"]])
    hot, cold = (model.tokenizer(word)["input_ids"][0] for word in (" hot", " cold"))
    with torch.no_grad():
        before = model(ids)[0, -1]
        with it.applied(model, vector.add(1.0)):
            after = model(ids)[0, -1]
    assert after[hot] - after[cold] > before[hot] - before[cold] + 0.5


PLACES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Paris", "Quito", "Kyoto")
