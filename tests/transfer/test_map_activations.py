"""What one model holds, in another's tokens and space; and patching with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp_transfer as it
from interp_transfer.activations.capture import Activations
from interp_transfer.interventions.patching import activation_patching
from interp_transfer.mapping.card import Card
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.identity import Space
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import SEPARATOR, split_sites
from interp_transfer.transfer.map_activations import mapped_activations
from tests.chat_styles import chat_tokenizer
from tests.checkpoints import WIDTH, byte_tokenizer, make_checkpoint, word_tokenizer

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
WIDER = 24
WORDS = ["the", "cat", "sat", "dogs", "run", "far"]
CLEAN, CORRUPTED = ["the cat sat", "dogs run"], ["the dogs sat", "cat run"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Letters in two widths, letters with a BOS, and whole words."""
    root = tmp_path_factory.mktemp("models")
    return {
        "letters": load_model(str(make_checkpoint(root / "a", "llama", 0)), device="cpu"),
        "wider": load_model(str(make_checkpoint(root / "b", "qwen2", 1, hidden_size=WIDER)), device="cpu"),
        "begun": load_model(str(make_checkpoint(root / "c", "llama", 2)), device="cpu", tokenizer=byte_tokenizer(bos=True)),
        "words": load_model(str(make_checkpoint(root / "d", "gemma2", 3)), device="cpu", tokenizer=word_tokenizer(WORDS)),
    }


def mapper_of(source: Any, target: Any, sites: tuple[str, str] = (S, T), alignment: str = "same_tokens") -> Mapper:
    """The identity where widths agree, else some matrix."""
    torch.manual_seed(0)
    ends = [
        Space(it.identity(model), site, int(model.cfg.d_model) * len(split_sites(site)))
        for model, site in zip((source, target), sites, strict=True)
    ]
    core = nn.Identity() if ends[0].d == ends[1].d else nn.Linear(ends[0].d, ends[1].d)
    card = Card("procrustes", 1, 0.0, 1.0, 1.0, 1, 1, 0, alignment=alignment)
    return Mapper(core, ends[0], ends[1], card).eval().requires_grad_(False)


def metric(logits: Tensor, _: Any) -> Tensor:
    return logits[:, 5] - logits[:, 6]


def test_a_model_crossed_with_itself_is_itself(models: dict[str, Any]) -> None:
    model = models["words"]
    found = mapped_activations(mapper_of(model, model, (T, T)), model, model, CLEAN)
    own = it.capture(model, CLEAN, T)
    assert list(found) == [T]
    for mine, other in zip((found[T], found.text_index, found.position, found.token), rows_of(own, T), strict=True):
        assert torch.equal(mine, other)
    assert found.model == it.identity(model)
    usual, crossed = (activation_patching(model, CLEAN, CORRUPTED, metric, T, donor=d, progress=False) for d in (None, found))
    assert torch.equal(usual.effect, crossed.effect) and torch.equal(usual.clean, crossed.clean)
    assert usual.effect.abs().max() > 1e-2
    heads = "blocks.1.attn.hook_z"
    usual, crossed = (
        activation_patching(model, CLEAN, CORRUPTED, metric, heads, by_head=True, donor=d, progress=False)
        for d in (None, it.capture(model, CLEAN, heads))
    )
    assert torch.equal(usual.effect, crossed.effect)


def test_chats_are_paired_as_collect_pairs_them(tmp_path: Path) -> None:
    source, target = (
        load_model(str(make_checkpoint(tmp_path / style, family, tokenizer=chat_tokenizer(style), max_position_embeddings=256)))
        for style, family in (("gemma", "llama"), ("chatml", "qwen2"))
    )
    chats = [[{"role": "user", "content": text}] for text in CLEAN]
    pairs = it.collect(source, target, chats, S, T, progress=False)
    mapper = mapper_of(source, target, alignment="last_so_far")
    found = mapped_activations(mapper, source, target, chats)
    torch.testing.assert_close(found[T], mapper(pairs.source[S]))
    assert torch.equal(found.token, pairs.target_token) and torch.equal(found.text_index, pairs.text_index)


def rows_of(acts: Activations, site: str) -> tuple[Tensor, ...]:
    return acts[site], acts.text_index, acts.position, acts.token


@pytest.mark.parametrize("names", [("wider", "letters"), ("letters", "words"), ("words", "letters"), ("letters", "begun")])
@pytest.mark.parametrize("alignment", ["last_so_far", "mean_in_span", "same_boundary"])
def test_rows_are_those_that_follow_puts_in_place(models: dict[str, Any], names: tuple[str, str], alignment: str) -> None:
    source, target = (models[name] for name in names)
    mapper = mapper_of(source, target, alignment="same_tokens" if names[0] == "wider" else alignment)
    found = mapped_activations(mapper, source, target, CLEAN)
    for text, clean in enumerate(CLEAN):
        plain = it.capture(target, [clean], T)
        with it.applied(target, it.follow(source, S, T, mapper)):
            put = it.capture(target, [clean], T)
        moved, mine = (put[T] != plain[T]).any(dim=1), found.text_index == text
        assert torch.equal(found.position[mine], moved.nonzero()[:, 0]) and moved.any()
        assert torch.equal(found.token[mine], plain.token[moved])
        torch.testing.assert_close(found[T][mine], put[T][moved], atol=1e-5, rtol=1e-5)


def ends(model: Any, text: str) -> list[int]:
    """Up to which character a text has been read with each token; BOS has read nothing."""
    encoded = model.tokenizer(text, return_offsets_mapping=True)
    return [end for _, end in encoded["offset_mapping"]]


def test_whole_words_get_the_letter_that_ends_them(models: dict[str, Any]) -> None:
    source, target = models["begun"], models["words"]
    found = mapped_activations(mapper_of(source, target, alignment="last_so_far"), source, target, CLEAN)
    assert found.text_index.tolist() == [0, 0, 0, 1, 1] and found.position.tolist() == [0, 1, 2, 0, 1]
    letters = it.capture(source, CLEAN, S)
    for text, places in enumerate([(3, 7, 11), (4, 8)]):
        rows = letters[S][letters.text_index == text][[ends(source, CLEAN[text]).index(place) for place in places]]
        torch.testing.assert_close(found[T][found.text_index == text], rows)


def test_letters_get_a_row_only_where_a_word_ends(models: dict[str, Any]) -> None:
    source, target = models["words"], models["begun"]
    found = mapped_activations(mapper_of(source, target, alignment="same_boundary"), source, target, CLEAN)
    words = it.capture(source, CLEAN, S)
    torch.testing.assert_close(found[T], words[S])
    for text, places in enumerate([(3, 7, 11), (4, 8)]):
        expected = [ends(target, CLEAN[text]).index(place) for place in places]
        assert found.position[found.text_index == text].tolist() == expected
    # A patch there is a patch; elsewhere, as at BOS, the corrupted prompt stays what it is.
    texts = CLEAN[:1], ["the sat cat"]
    only = mapped_activations(mapper_of(source, target, alignment="same_boundary"), source, target, texts[0])
    patched = activation_patching(target, *texts, metric, T, donor=only, progress=False)
    has = torch.zeros(len(patched.positions), dtype=torch.bool)
    has[only.position] = True
    assert (patched.effect[0, 0][has] != 0).all() and (patched.effect[0, 0][~has] == 0).all() and (~has).any()


def test_several_mappers_fill_several_sites(models: dict[str, Any]) -> None:
    source, target = models["wider"], models["letters"]
    both = S + SEPARATOR + "blocks.3.hook_resid_pre"
    mappers = [mapper_of(source, target), mapper_of(source, target, (both, "blocks.3.hook_mlp_out"))]
    found = mapped_activations(mappers, source, target, CLEAN)
    assert list(found) == [T, "blocks.3.hook_mlp_out"]
    assert torch.equal(found[T], mapped_activations(mappers[0], source, target, CLEAN)[T])
    rows = it.capture(source, CLEAN, split_sites(both))
    torch.testing.assert_close(found["blocks.3.hook_mlp_out"], mappers[1](torch.cat([*rows.values()], dim=1)))
    crossed = activation_patching(target, CLEAN[:1], CLEAN[:1], metric, list(found), donor=one(found), progress=False)
    assert crossed.effect.shape[1] == 2 and (crossed.clean == crossed.corrupted).all()


def one(acts: Activations) -> Activations:
    """The rows of the first text."""
    keep = acts.text_index == 0
    sites = {site: rows[keep] for site, rows in acts.items()}
    return Activations(sites, acts.text_index[keep], acts.position[keep], acts.token[keep], acts.model)


def test_other_models_and_sites_are_refused(models: dict[str, Any]) -> None:
    source, target = models["wider"], models["letters"]
    mapper = mapper_of(source, target)
    other = replace(mapper.card, alignment="index_left"), replace(mapper.card, alignment="word_ends")
    two = [mapper_of(source, target, (S, site)) for site in (S, T)]
    for each, card in zip(two, other, strict=True):
        each.card = card
    wrong: list[tuple[str, Callable[[], Any]]] = [
        ("mapper's source and", lambda: mapped_activations(mapper, target, target, CLEAN)),
        ("mapper's target and", lambda: mapped_activations(mapper, source, source, CLEAN)),
        ("no mapper given", lambda: mapped_activations([], source, target, CLEAN)),
        ("one mapper for each site", lambda: mapped_activations([mapper, mapper], source, target, CLEAN)),
        ("index_left and word_ends", lambda: mapped_activations(two, source, target, CLEAN)),
        ("one string", lambda: mapped_activations(mapper, source, target, "the cat")),
        ("shorten or split", lambda: mapped_activations(mapper, source, target, ["x y " * 60])),
    ]
    for match, call in wrong:
        with pytest.raises(ValueError, match=match):
            call()


def never(*_: Any) -> Tensor:
    raise AssertionError("refused only after a model was run for its logits")


def test_a_donor_of_something_else_is_refused(models: dict[str, Any]) -> None:
    model = models["letters"]
    own = it.capture(model, CLEAN, T)
    wrong: list[tuple[str, Activations, list[str]]] = [
        ("holds nothing at 'blocks.1.hook_resid_pre' but at blocks.2", own, [S, T]),
        (f"width {WIDER}, the model's {WIDTH}: map them", it.capture(models["wider"], CLEAN, T), [T]),
        ("no row of text 1, of 2", one(own), [T]),
        ("rows beyond the 2 clean prompts", it.capture(model, [*CLEAN, "the"], T), [T]),
        ("rows beyond the 2 clean prompts", it.capture(model, [CLEAN[0], CLEAN[1] + " far"], T), [T]),
    ]
    for match, donor, sites in wrong:
        with pytest.raises(ValueError, match=match):
            activation_patching(model, CLEAN, CLEAN, never, sites, donor=donor, progress=False)
