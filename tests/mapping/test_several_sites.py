"""Maps from several sites at once."""

from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.align import same_tokens
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.load import load_model
from interp_transfer.vectors.vector import Reference, SteeringVector, side_by_side
from tests.checkpoints import TEXTS, WIDTH, make_checkpoint

SOURCE, TARGET = ModelIdentity("a", "1" * 16), ModelIdentity("b", "2" * 16)
A, B, C = "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
MANY = [f"{text} {n}" for text in TEXTS for n in range(6)]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Any:
    root = tmp_path_factory.mktemp("checkpoints")
    made = [load_model(str(make_checkpoint(root / family, family)), device="cpu") for family in ("llama", "qwen2")]
    return made[0], made[1]


def planted() -> PairedActivations:
    """The target is a sum of two maps, one of either site."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(600, 4, generator=generator), torch.randn(600, 3, generator=generator)
    y = a @ torch.randn(4, 5, generator=generator) + b @ torch.randn(3, 5, generator=generator)
    index = torch.arange(600) // 10
    return PairedActivations({A: a, B: b}, {C: y}, ((A, C), (B, C)), index, index, SOURCE, TARGET, same_tokens(600))


def test_a_map_from_both_sites_knows_what_neither_does():
    pairs = planted()
    alone = [fit(pairs, "affine", sites=(site, C)).card.fvu for site in (A, B)]
    both = fit(pairs.joined([A, B]), "affine")
    assert min(alone) > 0.1
    assert both.card.fvu < 1e-6
    assert (both.source.site, both.source.d) == (f"{A} + {B}", 7)


def test_in_a_store_as_in_memory(models, tmp_path):
    a, b = models
    memory = it.collect(a, b, MANY, [A, B], [C, C], progress=False)
    stored = it.collect(a, b, MANY, [A, B], [C, C], store=tmp_path / "pairs", progress=False)
    here, there = (pairs.joined([B, A], C) for pairs in (memory, stored))
    assert torch.equal(here.source[f"{B} + {A}"], there.source[f"{B} + {A}"][:])
    assert tuple(there.source[f"{B} + {A}"].shape) == (len(memory), 2 * WIDTH)
    one, other = (fit(pairs, "affine", ridge=1e-2) for pairs in (here, there))
    rows = here.source[f"{B} + {A}"][:9]
    torch.testing.assert_close(one(rows), other(rows), rtol=1e-5, atol=1e-5)
    assert fit(there.shuffled(0), "affine", ridge=1e-2).card.shuffled
    assert f"{B} + {A}" in repr(there)


def test_vectors_of_both_sites_move_together(models):
    a, b = models
    pairs = it.collect(a, b, MANY, [A, B], [C, C], progress=False)
    mapper = fit(pairs.joined([A, B]), "affine", ridge=1e-2)
    contrast = [it.ContrastPair(f"yes {text}", f"no {text}") for text in TEXTS]
    vectors = [it.extract(a, contrast, site) for site in (A, B)]
    joint = side_by_side(vectors)
    assert torch.equal(joint.direction, torch.cat([v.direction for v in vectors]))
    moved = mapper.transfer(joint)
    rows = [torch.cat([it.capture(a, texts, [A, B], "last")[site] for site in (A, B)], dim=1) for texts in _sides(contrast)]
    torch.testing.assert_close(moved.direction, (mapper(rows[0]) - mapper(rows[1])).mean(dim=0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="fitted at"):
        mapper.transfer(vectors[0])


def _sides(contrast: list[Any]) -> tuple[list[str], list[str]]:
    return [pair.positive for pair in contrast], [pair.negative for pair in contrast]


def test_the_source_is_followed_at_both_sites(models):
    a, b = models
    pairs = it.collect(a, b, MANY, [A, B], [C, C], progress=False)
    mapper = fit(pairs.joined([A, B]), "affine")
    prompts = TEXTS[:2]
    acts = it.capture(a, prompts, [A, B])
    values = mapper(torch.cat([acts[A], acts[B]], dim=1))
    seen = []
    follow = it.follow(a, mapper.source.site, C, mapper)
    with it.applied(b, follow), b.hooks([(C, lambda x, hook: seen.append(x))]):  # noqa: ARG005 by name
        b(torch.tensor([b.tokenizer(prompts[0])["input_ids"]]))
    torch.testing.assert_close(seen[-1][0], values[acts.text_index == 0], rtol=1e-4, atol=1e-4)
    cached, anew = (
        it.generate(b, prompts, it.follow(a, mapper.source.site, C, mapper, cached=c), max_new_tokens=5) for c in (True, False)
    )
    assert cached == anew


def test_what_does_not_belong_together_is_refused():
    pairs = planted()
    for sites, message in (([A, A], "each once"), ([A, "blocks.3.hook_resid_pre"], "was not collected"), ([], "at least one")):
        with pytest.raises(ValueError, match=message):
            pairs.joined(sites)
    one = SteeringVector(torch.ones(2), A, SOURCE, Reference(torch.ones(4, 2)))
    other = SteeringVector(torch.ones(2), B, SOURCE, Reference(torch.ones(5, 2)))
    with pytest.raises(ValueError, match="not of the same prompts"):
        side_by_side([one, other])
    with pytest.raises(ValueError, match="two models"):
        side_by_side([one, SteeringVector(torch.ones(2), B, TARGET)])
