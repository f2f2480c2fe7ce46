"""The tokens at which probes read."""

import interp_transfer as it
from interp_transfer.paper.measures.probe_transfer import OneOfLast

SITE = "blocks.1.hook_resid_pre"


def test_one_of_the_last_tokens_is_drawn_alike_for_every_reader(wrapped):
    texts = ["the cat sat on a mat and looked", "x", "dogs run far from home, they say"] * 4
    acts = [it.capture(wrapped(family), texts, SITE, OneOfLast(3, seed=1)) for family in ("llama", "qwen2")]
    lengths = [it.capture(wrapped("llama"), texts, SITE).text_index.bincount()]
    assert acts[0].text_index.tolist() == acts[1].text_index.tolist() == list(range(12))
    behind = lengths[0] - 1 - acts[0].position
    assert behind.max() <= 2
    assert len(set(behind[::3].tolist())) > 1, "not the same place in every text"
    assert str(OneOfLast(3)) == "one of the last 3"
