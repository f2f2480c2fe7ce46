"""A source that reads along: against plain transformers models written out here, with and without caches, row by row."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

import interp_transfer as it
from interp_transfer.interventions import cached_reader
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.models.identity import Space
from interp_transfer.models.tokens import tokenize
from tests.checkpoints import (
    FAMILIES,
    TEXTS,
    WIDTH,
    byte_tokenizer,
    first,
    hooked_transformer,
    hooks_of,
    make_checkpoint,
    part,
    raw_model,
)

FROM, TO = "blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"
NEW = 8
OTHER_FAMILIES = ("llama", "gemma2", "gpt2")
OTHER_WIDTH = 24


def coarse_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and a BOS, with other ids: it changes its mind about a word while the word is being written."""
    blank: Any = Tokenizer(models.BPE())
    blank.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    blank.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<p>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    letters = [a + b for a in "abcdefghijklmnopqrstuvwxyz ,:|" for b in "abcdefghijklmnopqrstuvwxyz ,:|"]
    blank.train_from_iterator([*TEXTS, *letters], trainer)
    blank.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", blank.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=blank, bos_token="<s>", eos_token="</s>", pad_token="<p>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Source models with another tokenizer, another width and other weights, each with its folder."""
    root, made = tmp_path_factory.mktemp("others"), {}

    def get(family: str) -> tuple[Any, Path]:
        if family not in made:
            size: dict[str, Any] = {"vocab_size": 360, "hidden_size": OTHER_WIDTH}
            folder = make_checkpoint(root / family, family, 1, **size)
            coarse_tokenizer().save_pretrained(folder)
            made[family] = it.load_model(str(folder), device="cpu"), folder
        return made[family]

    return get


@pytest.fixture(scope="module")
def narrow() -> Callable[[Tensor], Tensor]:
    """A map from the other models' width to the targets', large enough to change what is generated."""
    torch.manual_seed(0)
    weight = torch.randn(OTHER_WIDTH, WIDTH)
    return lambda rows: rows @ weight


def unreadable(tokenizer: Any) -> list[int]:
    """Ids that are no printable text on their own, to be kept from being generated."""
    said = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    return [i for i, text in enumerate(said) if not (text.isascii() and text.isprintable()) or i in tokenizer.all_special_ids]


def ends(tokenizer: Any, ids: list[int]) -> list[int]:
    """Up to which character a text of readable characters has been read with each token; BOS is -1."""
    return [
        -1
        if i in tokenizer.all_special_ids
        else len(tokenizer.decode(ids[: n + 1]))
        - len(tokenizer.decode([ids[0]] if ids[0] in tokenizer.all_special_ids else []))
        for n, i in enumerate(ids)
    ]


def hidden(raw: Any, ids: list[int], layer: int) -> Tensor:
    """The input of a layer, without a cache."""
    return raw(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]


@torch.no_grad()
def written_out(
    target: tuple[Any, Any, str], source: tuple[Any, Any], mapping: Callable[[Tensor], Tensor], prompt: str, banned: list[int]
) -> list[int]:
    """Greedy tokens of one prompt, nothing cached anywhere: what each token was replaced by is worked out when it is read."""
    (raw, tokenizer, family), (other, others_tokenizer) = target, source
    ids = tokenizer(prompt)["input_ids"]
    values: list[Tensor | None] = []

    def replaced(_: Any, __: Any, out: Any) -> Any:
        new = first(out).clone()
        for position, value in enumerate(values):
            if value is not None:
                new[0, position] = value
        return (new, *out[1:]) if isinstance(out, tuple) else new

    module, side = part(raw, family, 1, "resid_post")
    assert side == "output"
    handle = module.register_forward_hook(replaced)
    made = []
    for _ in range(NEW):
        text = tokenizer.decode(ids)
        heard = others_tokenizer(text)["input_ids"]
        rows, reach = hidden(other, heard, 2), ends(others_tokenizer, heard)
        for end in ends(tokenizer, ids)[len(values) :]:
            so_far = [j for j, place in enumerate(reach) if 0 <= place <= end]
            values.append(mapping(rows[so_far[-1]][None])[0] if so_far else None)
        logits = raw(torch.tensor([ids])).logits[0, -1]
        logits[banned] = -torch.inf
        made.append(int(logits.argmax()))
        ids = [*ids, made[-1]]
    handle.remove()
    return made


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_tokens_are_those_of_a_loop_written_out(
    family: str,
    folder: Callable[[str], Path],
    wrapped: Callable[[str], Any],
    others: Callable[[str], tuple[Any, Path]],
    narrow: Callable[[Tensor], Tensor],
) -> None:
    target = wrapped("qwen2")
    source, where = others(family)
    banned = unreadable(byte_tokenizer())
    raw = raw_model(folder("qwen2")), byte_tokenizer(), "qwen2"
    other = raw_model(where), coarse_tokenizer()
    truth = [written_out(raw, other, narrow, prompt, banned) for prompt in TEXTS]
    replacing = follow(source, FROM, TO, narrow)
    options = {"max_new_tokens": NEW, "suppress_tokens": banned}
    assert generate_tokens(target, TEXTS, replacing, **options) == truth
    assert generate_tokens(target, TEXTS, replacing, **options, batch_tokens=1) == truth
    assert generate_tokens(target, TEXTS, **options) != truth, "the replacement changed no token, so this shows nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_put_in_place_of_itself_changes_nothing(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    plain = generate_tokens(model, TEXTS, max_new_tokens=NEW)
    same = follow(model, FROM, FROM)
    assert generate_tokens(model, TEXTS, same, max_new_tokens=NEW) == plain
    assert generate_tokens(model, TEXTS[:2], same, max_new_tokens=NEW, batch_tokens=1) == plain[:2]
    assert generate_tokens(model, TEXTS, same, max_new_tokens=NEW, use_cache=False) == plain
    for site in ("embed.hook_out", "blocks.1.hook_attn_out"):  # the first comes before any attention and fills no cache
        assert generate_tokens(model, TEXTS, follow(model, site, site), max_new_tokens=NEW) == plain, site


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_a_shifted_site_holds_is_what_the_source_held(family: str, wrapped: Callable[[str], Any]) -> None:
    model = wrapped(family)
    seen: list[Tensor] = []
    look = it.Intervention(TO, lambda a, at: seen.append(a[at.row == 1].clone()) or a)
    replacing = follow(model, FROM, TO, lambda rows: 2 * rows)
    made = generate_tokens(model, TEXTS, replacing, look, max_new_tokens=NEW)
    whole = [*tokenize(model, TEXTS)[1], *made[1]]
    held: dict[str, Tensor] = {}
    point = model.hook_dict[FROM]
    point.add_hook(lambda x, hook: held.update(rows=x[0]))
    model(torch.tensor([whole]))
    point.remove_hooks()
    got = torch.cat(seen)
    torch.testing.assert_close(got, 2 * held["rows"][: len(got)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["last_so_far", "same_boundary", "mean_in_span", "word_ends", "index_left", "index_right"])
@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_cached_is_uncached_at_every_step(
    family: str,
    strategy: str,
    wrapped: Callable[[str], Any],
    others: Callable[[str], tuple[Any, Path]],
    narrow: Callable[[Tensor], Tensor],
) -> None:
    target, (source, _) = wrapped("llama"), others(family)
    prompts = [*TEXTS[:3], "né 😀"]

    def run(cached: bool, **options: Any) -> tuple[list[list[int]], list[Tensor]]:
        rows: list[Tensor] = []
        replacing = follow(source, FROM, TO, lambda x: narrow(rows.append(x) or x), strategy=strategy, cached=cached)
        return generate_tokens(target, prompts, replacing, max_new_tokens=6, **options), rows

    (made, rows), (truth, expected) = run(True), run(False)
    assert made == truth
    assert [x.shape for x in rows] == [x.shape for x in expected]
    assert len(rows) >= (1 if strategy == "word_ends" else 3)
    for x, y in zip(rows, expected, strict=True):
        torch.testing.assert_close(x, y, atol=2e-4, rtol=2e-4)
    assert run(True, batch_tokens=1)[0] == truth
    assert run(True, use_cache=False)[0] == truth
    assert truth != generate_tokens(target, prompts, max_new_tokens=6)


@torch.no_grad()
def test_teacher_forcing_pairs_as_generation_did(
    wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]], narrow: Callable[[Tensor], Tensor]
) -> None:
    target, (source, _) = wrapped("llama"), others("gemma2")
    replacing = follow(source, FROM, TO, narrow)
    steps: list[Tensor] = []
    ends_too = it.Intervention(TO, lambda a: steps.append(a.clone()) or a)
    for prompt in TEXTS[:2]:
        steps.clear()
        made = generate_tokens(target, [prompt], replacing, ends_too, max_new_tokens=NEW)[0]
        told = torch.cat(steps)
        steps.clear()
        ids = tokenize(target, [prompt])[0]
        with it.applied(target, replacing, ends_too, prompt_lengths=torch.tensor([len(ids)])):
            target(torch.tensor([[*ids, *made]]))
        forced = torch.cat(steps)[: len(told)]
        torch.testing.assert_close(forced, told, atol=2e-4, rtol=2e-4)


def test_amounts(
    wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]], narrow: Callable[[Tensor], Tensor]
) -> None:
    target, (source, _) = wrapped("qwen2"), others("llama")
    plain = generate_tokens(target, TEXTS, max_new_tokens=NEW)
    full = generate_tokens(target, TEXTS, follow(source, FROM, TO, narrow), max_new_tokens=NEW)
    assert generate_tokens(target, TEXTS, follow(source, FROM, TO, narrow, amount=0), max_new_tokens=NEW) == plain
    assert generate_tokens(target, TEXTS, follow(source, FROM, TO, narrow, amount=1), max_new_tokens=NEW) == full
    got: dict[str, Tensor] = {}

    def keep(name: str) -> it.Intervention:
        return it.Intervention(TO, lambda a: got.update({name: a.clone()}) or a)

    for amount in (0.0, 0.25, 1.0):
        half = follow(source, FROM, TO, narrow, amount=amount)
        generate_tokens(target, TEXTS[:1], keep("own"), half, keep(str(amount)), max_new_tokens=1)
    torch.testing.assert_close(got["0.25"], 0.75 * got["own"] + 0.25 * got["1.0"], atol=1e-5, rtol=1e-5)
    assert torch.equal(got["0.0"], got["own"])
    for amount in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="from 0"):
            follow(source, FROM, TO, narrow, amount=amount)


def test_only_the_positions_asked_for_are_replaced(wrapped: Callable[[str], Any]) -> None:
    model = wrapped("qwen2")
    counts: list[int] = []

    def zeros(rows: Tensor) -> Tensor:
        counts.append(len(rows))
        return 0 * rows

    lengths = [len(ids) for ids in tokenize(model, TEXTS)]
    for positions, expected in (("prompt", [sum(lengths)]), ("last", [4]), ("generated", [4] * (NEW - 1)), (0, [4])):
        counts.clear()
        made = generate_tokens(model, TEXTS, follow(model, FROM, TO, zeros, positions), max_new_tokens=NEW)
        assert counts == expected, positions
        assert (
            generate_tokens(model, TEXTS, follow(model, FROM, TO, zeros, positions, cached=False), max_new_tokens=NEW) == made
        )


def test_a_token_without_partner_keeps_its_own(
    wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]], narrow: Callable[[Tensor], Tensor]
) -> None:
    target, (source, _) = wrapped("qwen2"), others("llama")
    got: dict[str, Tensor] = {}
    before, after = (it.Intervention(TO, lambda a, n=n: got.update({n: a.clone()}) or a) for n in ("before", "after"))
    coarse, fine = coarse_tokenizer(), byte_tokenizer()
    words = [a + b + c for a in "abcdefgh" for b in "aeioulrst" for c in "jkqvwxyz"]
    spelled = (w for w in words if len(fine(w)["input_ids"]) == 3)
    prompt = next(w for w in spelled if [coarse.decode(i) for i in coarse(w)["input_ids"][1:]] == [w[:2], w[2:]])
    generate_tokens(target, [prompt], before, follow(source, FROM, TO, narrow), after, max_new_tokens=1)
    changed = (got["before"] != got["after"]).any(dim=1)
    assert changed.tolist() == [False, True, True], "no token of the source ends as early as the target's first"


def test_a_hooked_transformer_on_either_side(
    folder: Callable[[str], Path],
    wrapped: Callable[[str], Any],
    others: Callable[[str], tuple[Any, Path]],
    narrow: Callable[[Tensor], Tensor],
) -> None:
    bridge = wrapped("qwen2")
    model = it.load_model(hooked_transformer(folder("qwen2")), tokenizer=bridge.tokenizer)
    source, _ = others("llama")
    expected = generate_tokens(bridge, TEXTS, follow(source, FROM, TO, narrow), max_new_tokens=NEW)
    assert generate_tokens(model, TEXTS, follow(source, FROM, TO, narrow), max_new_tokens=NEW) == expected
    shifted = generate_tokens(bridge, TEXTS, follow(bridge, FROM, TO, torch.neg), max_new_tokens=NEW)
    for there, here in ((bridge, model), (model, bridge), (model, model)):
        assert generate_tokens(here, TEXTS, follow(there, FROM, TO, torch.neg), max_new_tokens=NEW) == shifted


def test_nothing_is_left_behind_by_an_error(wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]]) -> None:
    target, (source, _) = wrapped("qwen2"), others("llama")
    calls: list[int] = []

    def breaks(rows: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return rows[:, :WIDTH]

    replacing = follow(source, FROM, TO, breaks)
    with pytest.raises(ZeroDivisionError):
        it.generate(target, TEXTS, replacing, max_new_tokens=NEW)
    assert not hooks_of(target) and not hooks_of(source)
    made = generate_tokens(target, TEXTS, replacing, max_new_tokens=NEW)
    assert made == generate_tokens(target, TEXTS, follow(source, FROM, TO, lambda x: x[:, :WIDTH]), max_new_tokens=NEW)
    with pytest.raises(RuntimeError, match="stop"), it.applied(target, follow(target, FROM, TO), replacing):
        target(torch.tensor([[5, 6]]))
        raise RuntimeError("stop")
    assert not hooks_of(target) and not hooks_of(source)


class Toy(nn.Module):
    """Looks like a fitted mapper, as far as it knows its spaces."""

    def __init__(self, source: Any, target: Any, alignment: str) -> None:
        super().__init__()
        self.weight = nn.Linear(OTHER_WIDTH, WIDTH)
        self.source: Any = Space(it.identity(source), FROM, OTHER_WIDTH)
        self.target: Any = Space(it.identity(target), TO, WIDTH)
        self.card: Any = SimpleNamespace(alignment=alignment)

    def forward(self, rows: Tensor) -> Tensor:
        return self.weight(rows)


def test_a_mapper_is_held_to_its_spaces(wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]]) -> None:
    target, (source, _) = wrapped("qwen2"), others("llama")
    mapper = Toy(source, target, "same_boundary")
    replacing = follow(source, FROM, TO, mapper)
    assert "same_boundary" in repr(replacing.transform)
    assert it.generate(target, TEXTS[:1], replacing, max_new_tokens=2)
    with pytest.raises(ValueError, match="was made for"):
        it.generate(wrapped("llama"), TEXTS[:1], replacing, max_new_tokens=2)
    with pytest.raises(ValueError, match="was fitted on"):
        follow(others("gpt2")[0], FROM, TO, mapper)
    with pytest.raises(ValueError, match="leads from"):
        follow(source, FROM, "blocks.3.hook_resid_pre", mapper)
    with pytest.raises(ValueError, match="paired by 'same_boundary'"):
        follow(source, FROM, TO, mapper, strategy="last_so_far")
    assert follow(others("gpt2")[0], FROM, TO, lambda rows: mapper(rows))


def test_what_cannot_be_followed(wrapped: Callable[[str], Any], others: Callable[[str], tuple[Any, Path]]) -> None:
    target, (source, _) = wrapped("qwen2"), others("llama")
    with pytest.raises(ValueError, match="unknown site"):
        follow(source, "blocks.2.hook_resid_pr", TO)
    with pytest.raises(ValueError, match="did you mean 'last_so_far'"):
        follow(source, FROM, TO, strategy="last_so_fa")
    with pytest.raises(ValueError, match=r"the mapping made \(\d+, 24\)"):
        it.generate(target, TEXTS, follow(source, FROM, TO), max_new_tokens=1)
    with pytest.raises(ValueError, match="not known"), it.applied(target, follow(target, FROM, TO)):
        target.original_model(inputs_embeds=torch.zeros(1, 3, WIDTH))
    with pytest.raises(ValueError, match="in an Intervention"):
        follow(source, FROM, TO).transform(torch.zeros(1, WIDTH), None)


def test_what_is_generated_beyond_the_sources_context_keeps_its_own_activation(
    wrapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = target = wrapped("qwen2")
    [prompt] = tokenize(target, TEXTS[:1])
    put = follow(source, "blocks.0.hook_resid_post", TO)
    [whole] = generate_tokens(target, TEXTS[:1], put, max_new_tokens=NEW, progress=False)
    monkeypatch.setattr(cached_reader, "context_length", lambda _: len(prompt) + 2)
    seen: list[Tensor] = []
    own = it.Intervention(TO, lambda a: seen.append(a.clone()) or a)
    after = it.Intervention(TO, lambda a: seen.append(a.clone()) or a)
    with pytest.warns(UserWarning, match=f"context of {len(prompt) + 2} tokens is full"):
        [cut] = generate_tokens(target, TEXTS[:1], own, put, after, max_new_tokens=NEW, progress=False)
    assert cut[:3] == whole[:3]
    changed = [not torch.equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True)]
    assert changed == [True] * 3 + [False] * (len(changed) - 3) and len(changed) > 3
    monkeypatch.setattr(cached_reader, "context_length", lambda _: len(prompt) - 1)
    with pytest.raises(ValueError, match="shorten the prompt"):
        generate_tokens(target, TEXTS[:1], put, max_new_tokens=NEW, progress=False)
