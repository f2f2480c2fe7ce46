"""What texts begin with alike is read once, and nothing that is computed changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions import read_ahead
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.merging import merged
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES

BEGINNING = "a dog and a cat sat on the mat and "
TEXTS = [BEGINNING + end for end in ("the cat", "a", "the dog sat on the mat", "cats and dogs", "the mat")]
NEW = 6


def vectors(model: Any, site: str, number: int) -> list[it.SteeringVector]:
    generator = torch.Generator().manual_seed(0)
    return [it.SteeringVector(3 * torch.randn(16, generator=generator), site, it.identity(model)) for _ in range(number)]


def settings_of(model: Any, site: str) -> dict[str, tuple[Intervention, ...]]:
    several = vectors(model, site, 3)
    return {
        "none": (),
        "one": (it.add(several[0], 1.0),),
        "two sites": (it.add(several[0], 1.0), it.add(vectors(model, "blocks.2.hook_resid_pre", 1)[0], -1.0)),
        "a function of the rows": (Intervention(site, lambda a: 0.5 * a),),
        "a strength for each text": (it.add(several[0], torch.tensor([1.0, 1.0, 2.0, 2.0, 1.0])),),
        "ablation, which may look where it is": (it.ablate(several[0]),),
        "the last token": (it.add(several[0], 1.0, "last"),),
    }


@contextmanager
def tokens_of_blocks(model: Any) -> Iterator[list[int]]:
    """The number of tokens that the last block computes in each pass."""
    read: list[int] = []
    block = model.blocks[len(model.blocks) - 1]
    inner = block._modules.get("_original_component", block)
    handle = inner.register_forward_hook(lambda *given: read.append(given[2].shape[:2].numel()))
    try:
        with pytest.MonkeyPatch.context() as patch:  # the hook only listens
            for where in ("generation", "predictions"):
                patch.setattr(f"interp_transfer.interventions.{where}.has_no_hooks", lambda model: True)
            yield read
    finally:
        handle.remove()


@contextmanager
def nothing_shared() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_ahead, "WORTH_SHARING", 10**9)
        yield


@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"])
@pytest.mark.parametrize("family", FAMILIES)
def test_completions_stay_what_they_are(family: str, site: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    for name, setting in settings_of(model, site).items():
        shared = generate_tokens(model, TEXTS, *setting, max_new_tokens=NEW)
        with nothing_shared():
            assert generate_tokens(model, TEXTS, *setting, max_new_tokens=NEW) == shared, name


@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"])
@pytest.mark.parametrize("family", FAMILIES)
def test_settings_that_share_a_batch_stay_apart(family: str, site: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    settings = [(it.add(vector, 1.0),) for vector in vectors(model, site, 3)]
    with nothing_shared():
        alone = [row for setting in settings for row in generate_tokens(model, TEXTS, *setting, max_new_tokens=NEW)]
    assert generate_tokens(model, TEXTS * 3, *merged(settings, len(TEXTS)), max_new_tokens=NEW) == alone


@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"])
@pytest.mark.parametrize("family", FAMILIES)
def test_costs_stay_what_they_are(family: str, site: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    settings = [*settings_of(model, site).values(), (Intervention("unembed.hook_out", lambda a: 0.5 * a),)]
    prompts, answers = tokenize(model, TEXTS), [[5, 6, 7], [8], [9, 10], [5], [6, 6, 6, 6]]
    shared = teacher_forced_each(model, prompts, answers, settings, skip=[1, 0, 0, 0, 2])
    with nothing_shared():
        plain = teacher_forced_each(model, prompts, answers, settings, skip=[1, 0, 0, 0, 2])
    for a, b in zip(shared, plain, strict=True):
        torch.testing.assert_close(torch.stack([a.kl, a.loss]), torch.stack([b.kl, b.loss]), rtol=1e-4, atol=1e-5)
        assert torch.equal(a.agreement, b.agreement)


def test_the_beginning_is_read_once(wrapped: Callable[[str], Any]) -> None:
    model, site = wrapped("llama"), "blocks.1.hook_resid_pre"
    ids = tokenize(model, TEXTS)
    alike = next(k for k, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    assert alike >= read_ahead.WORTH_SHARING
    longest = max(map(len, ids))
    steer = it.add(vectors(model, site, 1)[0], 1.0)
    with tokens_of_blocks(model) as read:
        generate_tokens(model, TEXTS, steer, max_new_tokens=1)
        columns = min(alike, min(map(len, ids)), longest - 2)
        assert read == [columns, len(TEXTS) * (longest - 1 - columns), len(TEXTS)]
        read.clear()
        answers = [[5, 6]] * len(TEXTS)
        teacher_forced_each(model, ids, answers, [(steer,)])
        assert read == [len(TEXTS) * (longest + 2), alike, len(TEXTS) * (longest + 2 - alike)], "the unsteered pass reads all"


def test_hooks_of_the_user_see_whole_texts(wrapped: Callable[[str], Any]) -> None:
    model, seen = wrapped("llama"), []
    ids = tokenize(model, TEXTS)
    hf = huggingface_model(model)
    handle = hf.get_input_embeddings().register_forward_hook(lambda *given: seen.append(given[2].shape[1]))
    try:
        generate_tokens(model, TEXTS, max_new_tokens=1)
        teacher_forced_each(model, ids, [[5]] * len(ids), [(it.add(vectors(model, "blocks.1.hook_resid_pre", 1)[0], 1.0),)])
    finally:
        handle.remove()
    assert seen == [max(map(len, ids))] + [max(map(len, ids)) + 1] * 2


def test_texts_that_begin_apart_are_read_as_ever(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    with tokens_of_blocks(model) as read:
        generate_tokens(model, ["a cat sat on the mat", "the dog sat on the mat"], max_new_tokens=1)
    assert len(read) == 1
