"""Teacher-forced predictions against independent computations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.interventions import predictions, read_ahead
from interp_transfer.interventions.predictions import TeacherForced, teacher_forced_each
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.models import blocks
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import FAMILIES, TEXTS, WIDTH, hooked_transformer

SITE = "blocks.2.hook_resid_pre"


def steer(model: Any, positions: Any = "all", scale: float = 2.0) -> it.Intervention:
    direction = scale * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    return it.add(it.SteeringVector(direction, SITE, it.identity(model)), positions=positions)


def cases(model: Any) -> tuple[list[list[int]], list[list[int]]]:
    prompts = tokenize(model, TEXTS)
    answers = tokenize(model, [" home, they", "y", " in it: 12 + 7 and more", " a"])
    return prompts, answers


def forced(model: Any, prompts: list[list[int]], answers: list[list[int]], *interventions: it.Intervention) -> TeacherForced:
    [one] = teacher_forced_each(model, prompts, answers, [interventions])
    return one


def by_hand(model: Any, prompt: list[int], answer: list[int], *interventions: it.Intervention) -> float:
    tokens = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        p = model(tokens)[0].double().softmax(-1)
        with it.applied(model, *interventions, prompt_lengths=torch.tensor([len(prompt)])):
            q = model(tokens)[0].double().softmax(-1)
    total = 0.0
    for t in range(len(answer)):
        a, b = p[len(prompt) - 1 + t], q[len(prompt) - 1 + t]
        total += float((a * (a / b).log()).sum())
    return total / len(answer)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kl_is_that_computed_by_hand(family: str, positions: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    prompts, answers = cases(model)
    found = forced(model, prompts, answers, steer(model, positions)).kl
    expected = [by_hand(model, p, a, steer(model, positions)) for p, a in zip(prompts, answers, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-3)
    if positions == "generated":
        # The first token of an answer is predicted from the prompt, so an answer of one token is not touched at all.
        assert found[[len(a) == 1 for a in answers]].max() < 1e-6
        assert found[[len(a) > 1 for a in answers]].min() > 1e-3
    else:
        assert found.min() > 1e-3


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_loss_is_that_of_transformers(positions: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    found = forced(model, prompts, answers, steer(model, positions))
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            before = model(tokens)[0]
            with it.applied(model, steer(model, positions), prompt_lengths=torch.tensor([len(prompt)])):
                after = model(tokens)[0]
        for logits, loss in ((before, found.loss_before), (after, found.loss)):
            told = torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer))
            assert float(loss[index]) == pytest.approx(float(told), rel=1e-4)


def test_no_effect_is_no_divergence(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    assert float(forced(model, prompts, answers, steer(model, scale=0.0)).kl.max()) == pytest.approx(0.0, abs=1e-6)
    other = it.load_model(hooked_transformer(folder("qwen2")), tokenizer=model.tokenizer)
    torch.testing.assert_close(
        forced(other, prompts, answers, steer(other)).kl,
        forced(model, prompts, answers, steer(model)).kl,
        atol=1e-4,
        rtol=1e-3,
    )


@pytest.mark.parametrize("limit", ["LOGITS_PER_BATCH", "LOGITS_AT_ONCE"])
def test_small_batches_give_the_same(limit: str, wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped("gpt2")
    prompts, answers = cases(model)
    found = forced(model, prompts, answers, steer(model, "generated"))
    monkeypatch.setattr(predictions, limit, 1)
    small = forced(model, prompts, answers, steer(model, "generated"))
    for what in ("kl", "agreement", "loss", "loss_before"):
        torch.testing.assert_close(getattr(small, what), getattr(found, what), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_batches_are_halved_when_memory_runs_out(
    positions: str, wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    settings = [(steer(model, positions, scale),) for scale in (1.0, -2.0, 0.5, 3.0)]
    expected = teacher_forced_each(model, prompts, answers, settings)
    real, sizes, room = predictions._logits, [], [0]

    def short_of_memory(model: Any, texts: Any, scored: Any, *steers: Any, **options: Any) -> Any:
        if not steers:
            return real(model, texts, scored)
        sizes.append(len(texts))
        if len(texts) > room[0] or len(sizes) == 2:  # the second: after a setting of the batch was measured
            raise torch.OutOfMemoryError
        return real(model, texts, scored, *steers, **options)

    monkeypatch.setattr(predictions, "_logits", short_of_memory)
    for rows, seen in ((4, [4] * 2 + [2] * 8), (1, [4, 2] + [1] * 8 + [2] + [1] * 8)):
        room[0] = rows
        sizes.clear()
        found = teacher_forced_each(model, prompts, answers, settings, unsteered=predictions.Unsteered())
        assert sizes == seen
        for one, other in zip(found, expected, strict=True):
            for what in ("kl", "agreement", "loss", "loss_before"):
                torch.testing.assert_close(getattr(one, what), getattr(other, what), atol=1e-6, rtol=1e-5)
    room[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        teacher_forced_each(model, prompts, answers, settings)


def test_empty_answers_are_refused(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    for prompts, answers in (([], []), ([[1, 2]], [[]])):
        with pytest.raises(ValueError, match="at least one text, and a token in each answer"):
            forced(model, prompts, answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_before_the_first_site_run_once_and_figures_stay(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    prompts, answers = cases(model)
    settings = [(steer(model, where, scale),) for where in ("all", "generated") for scale in (1.0, -2.0)]
    alone = [forced(model, prompts, answers, *setting) for setting in settings]
    passes: list[int] = []
    handles = [
        model.blocks[k].register_forward_hook(lambda module, args, output, k=k: passes.append(k))  # noqa: ARG005
        for k in (1, 2)
    ]
    try:
        together = teacher_forced_each(model, prompts, answers, settings)
    finally:
        for handle in handles:
            handle.remove()
    assert (passes.count(1), passes.count(2)) == (1, 2 + len(settings)), "once unsteered, once to check, once a setting"
    for one, other in zip(together, alone, strict=True):
        for what in ("kl", "agreement", "loss", "loss_before"):
            torch.testing.assert_close(getattr(one, what), getattr(other, what), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("room", "runs"), [(predictions.KEPT_BYTES, 0), (0, 1)])
def test_later_settings_on_the_same_texts_read_the_unsteered_passes_that_were_kept(
    room: int, runs: int, wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "KEPT_BYTES", room)
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    first, second = ([(steer(model, "all", scale),) for scale in scales] for scales in ((1.0, 0.5), (-2.0, 3.0)))
    expected = teacher_forced_each(model, prompts, answers, second)
    unsteered = predictions.Unsteered()
    teacher_forced_each(model, prompts, answers, first, unsteered=unsteered)
    passes: list[None] = []
    handle = model.blocks[1].register_forward_hook(lambda module, args, output: passes.append(None))  # noqa: ARG005
    try:
        found = teacher_forced_each(model, prompts, answers, second, unsteered=unsteered)
    finally:
        handle.remove()
    assert len(passes) == runs, "of the block before the site"
    for one, other in zip(found, expected, strict=True):
        for what in ("kl", "agreement", "loss", "loss_before"):
            torch.testing.assert_close(getattr(one, what), getattr(other, what), atol=1e-6, rtol=1e-5)


def test_each_setting_starts_at_its_own_first_block(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    sites = [f"blocks.{k}.hook_resid_pre" for k in (1, 2, 3) for _ in range(3)]
    settings = [(it.Intervention(site, MeanAblate(torch.full((WIDTH,), 0.1 + k)), "all"),) for k, site in enumerate(sites)]
    alone = [forced(model, prompts, answers, *setting) for setting in settings]
    passes: list[int] = []
    handles = [model.blocks[k].register_forward_hook(lambda *_, k=k: passes.append(k)) for k in range(model.cfg.n_layers)]
    unsteered = predictions.Unsteered()
    try:
        together = teacher_forced_each(model, prompts, answers, settings, unsteered=unsteered)
        seen = [passes.count(k) for k in (0, 1, 2, 3)]
        passes.clear()
        teacher_forced_each(model, prompts, answers, settings[3:], unsteered=unsteered)
    finally:
        for handle in handles:
            handle.remove()
    # Three settings at block 1 are too few for a check. At the others: one unsteered pass, a check of each start, the settings.
    assert seen == [1 + 3, 1 + 3, 1 + 3 + (1 + 3), 1 + 3 + 2 * (1 + 3)]
    assert passes.count(0) == 0, "what was kept for all starts serves some of them"
    for one, other in zip(together, alone, strict=True):
        for what in ("kl", "agreement", "loss", "loss_before"):
            torch.testing.assert_close(getattr(one, what), getattr(other, what), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("site", ["hook_embed", "blocks.*.hook_resid_pre"])
def test_no_block_is_left_out_where_the_first_site_is_not_known(site: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    settings = [(it.Intervention(site, MeanAblate(torch.full((WIDTH,), value)), "all"),) for value in (0.1, 0.2, 0.3, 0.4)]
    for one, setting in zip(teacher_forced_each(model, prompts, answers, settings), settings, strict=True):
        expected = [by_hand(model, p, a, *setting) for p, a in zip(prompts, answers, strict=True)]
        torch.testing.assert_close(one.kl, torch.tensor(expected), atol=1e-4, rtol=1e-3)


def test_a_model_whose_blocks_cannot_be_left_out_runs_whole(wrapped: Callable[[str], Any], monkeypatch: Any) -> None:
    """As if later blocks read more of earlier ones than their output."""
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    settings = [(steer(model, "all", scale),) for scale in (1.0, 2.0, 3.0, 4.0)]
    whole = [forced(model, prompts, answers, *setting).kl for setting in settings]
    real, tried = predictions.starting_at, []

    def wrong(model: Any, block: int, output: Any) -> Any:
        tried.append(block)
        return real(model, block, 2 * output)

    for module in (blocks, predictions, read_ahead):
        monkeypatch.setattr(module, "starting_at", wrong)
    together = teacher_forced_each(model, prompts, answers, settings)
    assert tried == [2], "tried once, and given up"
    for one, expected in zip(together, whole, strict=True):
        torch.testing.assert_close(one.kl, expected)


def test_logits_are_computed_after_the_answers_tokens_alone(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    seen: list[int] = []
    head = model.original_model.get_output_embeddings()._modules["_original_component"]
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output.shape[:-1].numel()))  # noqa: ARG005
    try:
        found = forced(model, prompts, answers, steer(model)).kl
    finally:
        handle.remove()
    assert seen == [sum(map(len, answers))] * 2
    ending = it.Intervention("unembed.hook_out", lambda a: a + 0.0, "all")  # at the logits themselves: all are computed
    both = forced(model, prompts, answers, steer(model), ending).kl
    torch.testing.assert_close(both, found, atol=1e-5, rtol=1e-4)


def test_a_model_that_does_not_call_its_unembedding_computes_all_logits(
    wrapped: Callable[[str], Any], monkeypatch: Any
) -> None:
    model = wrapped("qwen2")
    prompts, answers = cases(model)
    expected = forced(model, prompts, answers, steer(model)).kl
    elsewhere = torch.nn.Linear(WIDTH, 3)  # as if the logits were computed from the weights without a call of the module
    monkeypatch.setattr(model.original_model, "get_output_embeddings", lambda: elsewhere)
    torch.testing.assert_close(forced(model, prompts, answers, steer(model)).kl, expected)
