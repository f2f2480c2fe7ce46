"""A model that reads along, against the plain model that reads each sequence alone and anew."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp_transfer.interventions.cached_reader import CachedReader
from interp_transfer.models.hooked_model import huggingface_model
from tests.checkpoints import CONTEXT, FAMILIES, raw_model

SITE, LAYER = "blocks.2.hook_resid_pre", 2


def histories() -> list[list[list[int]]]:
    """Three texts that grow, change at their ends by different lengths, begin anew, stand still and shrink."""
    chance = random.Random(0)
    texts = [[chance.randrange(3, 300) for _ in range(n)] for n in (3, 9, 1)]
    steps = [texts]
    for _ in range(6):
        texts = [
            ids[: len(ids) - chance.randrange(3)] + [chance.randrange(3, 300) for _ in range(chance.randrange(4))]
            for ids in texts
        ]
        steps.append([ids or [7] for ids in texts])
    return [*steps, [texts[0], [5, 6], []], [[*texts[0], 8], [5, 6], [9]], [texts[0][:2], [5, 6, 7], [9, 9]]]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_are_those_of_the_plain_model(family: str, folder: Callable[[str], Path], wrapped: Callable[[str], Any]) -> None:
    raw = raw_model(folder(family))
    cached, anew = (CachedReader(wrapped(family), SITE, cached=kept) for kept in (True, False))
    for texts in histories():
        for reader in (cached, anew):
            for ids, rows in zip(texts, reader.read(texts), strict=True):
                if ids:
                    truth = raw(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER][0]
                    torch.testing.assert_close(rows[: len(ids)], truth, atol=2e-4, rtol=2e-4)


def test_only_what_changed_is_read(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    widths: list[int] = []
    handle = huggingface_model(model).register_forward_pre_hook(
        lambda _, __, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    reader = CachedReader(model, SITE)
    for texts in (
        [[5, 6, 7, 8], [9, 9]],
        [[5, 6, 7, 8, 4], [9, 9, 3]],
        [[5, 6, 7, 8, 4], [9, 9]],
        [[5, 6, 3, 3, 3], [9, 9, 3]],
    ):
        reader.read(texts)
    handle.remove()
    assert widths == [4, 1, 3], "all, the new token, nothing, and from the first that changed"


def test_a_reader_after_an_error_begins_anew(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("llama")
    reader = CachedReader(model, SITE)
    before: Tensor = reader.read([[5, 6, 7]])[0].clone()
    with pytest.raises(ValueError, match=f"reads text 1 as {CONTEXT + 1} tokens, its context is {CONTEXT}"):
        reader.read([[5], [5] * (CONTEXT + 1)])
    with pytest.raises(IndexError):
        reader.read([[5, 10**6]])
    torch.testing.assert_close(reader.read([[5, 6, 7]])[0], before)
