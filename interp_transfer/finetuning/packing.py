"""Batches for fine-tuning: each example is one sequence of prompt, response and end token.

The loss is on the response and the end token alone; prompt tokens have the label -100, which torch's cross entropy ignores. A
batch is either packed (several examples in a row that do not attend to each other; for small models and short examples) or
padded on the right (any model, any attention kernel). Both give the same loss.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Row = dict[str, list[int]]
"""One example: `input_ids` and `labels`, of equal length."""

Batches = Callable[[Sequence[Row]], dict[str, Any]]
"""Makes the model inputs of a batch of examples."""

IGNORED = -100
"""The label that torch's cross entropy ignores."""

_ROW = 128  # tokens in a packed row


def encode(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[tuple[str, str]], max_length: int, *, skip_long: bool = False
) -> list[Row]:
    """Token ids and labels of each example; labels of the prompt's tokens and of a first token are -100.

    The prompt is tokenized with the default special tokens (its BOS, unless the prompt has it already). The response
    is tokenized separately and without special tokens, so that the boundary between them is the same as in generation. The
    end token follows it.

    Args:
        tokenizer: must have an end token.
        examples: pairs of prompt and response; the response continues the prompt's text.
        max_length: longer sequences are refused, not truncated: a truncated response would teach unfinished answers.
        skip_long: leave longer sequences out instead.

    Raises:
        ValueError: for no examples, no end token, or a sequence that is too long.
    """
    from interp_transfer.models.tokens import own_tokens

    if not examples:
        raise ValueError("no examples to train on: give at least one pair of prompt and response")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token, so the model could not learn to stop: set tokenizer.eos_token")
    prompts: Any = tokenizer([prompt for prompt, _ in examples])["input_ids"]
    prompts = [ids[own] for ids, own in zip(prompts, own_tokens(prompts, tokenizer), strict=True)]
    responses: Any = tokenizer([response for _, response in examples], add_special_tokens=False)["input_ids"]
    rows = []
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids = [*prompt, *response, tokenizer.eos_token_id]
        if len(ids) <= max_length:
            unscored = max(len(prompt), 1)  # no token predicts the first one
            rows.append({"input_ids": ids, "labels": [IGNORED] * unscored + ids[unscored:]})
        elif not skip_long:
            raise ValueError(
                f"example {index} has {len(ids)} tokens, more than max_length={max_length}: shorten it or raise max_length"
            )
    if not rows:
        raise ValueError(f"all {len(examples)} examples have more than max_length={max_length} tokens: raise max_length")
    return rows


def padding_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The padding token, or the end token of a tokenizer without one. Nothing is learned from it."""
    token: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return token


def packing_for(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "Pack":
    """The packing for a model and a maximum length of examples, in tokens.

    Raises:
        ValueError: for an attention kernel other than "sdpa" and "eager".
    """
    config: Any = model.config.get_text_config()
    kernel = config._attn_implementation
    if kernel not in ("sdpa", "eager"):
        raise ValueError(
            f"examples cannot be packed for the attention kernel {kernel!r}: load the model with attn_implementation='sdpa'"
        )
    return Pack(min(_ROW, max_length), padding_token(tokenizer))


def padding_for(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel | None" = None) -> Batches:
    """What pads the examples of a batch to rows of equal length.

    With a model that can leave out the logits of first tokens, it pads on the left and asks for those of the responses alone:
    with short responses and a large vocabulary they take most of the time and memory of a step.
    """
    from transformers import DataCollatorForSeq2Seq

    if model is not None and {"logits_to_keep", "position_ids"} <= set(inspect.signature(model.forward).parameters):
        return Trailing(padding_token(tokenizer))
    own: Any = copy.deepcopy(tokenizer)
    own.padding_side, own.pad_token_id = "right", padding_token(tokenizer)
    return DataCollatorForSeq2Seq(own)


@dataclass(frozen=True)
class Trailing:
    """Pads the examples of a batch on the left, so that all responses end together, and leaves out logits before them.

    Attributes:
        pad: padding token.
    """

    pad: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Model inputs: input_ids, attention_mask, position_ids, labels of the last tokens, and how many these are."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        keep = min(width, 1 + max(len(row["labels"]) - _unscored(row) for row in rows))  # the token before predicts the first
        ids = torch.full((len(rows), width), self.pad)
        mask, positions = torch.zeros_like(ids), torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for i, row in enumerate(rows):
            start = width - len(row["input_ids"])
            ids[i, start:] = torch.tensor(row["input_ids"])
            labels[i, start:] = torch.tensor(row["labels"])
            mask[i, start:] = 1
            positions[i, start:] = torch.arange(width - start)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        return {**inputs, "labels": labels[:, width - keep :], "logits_to_keep": keep}


def _unscored(row: Row) -> int:
    """The number of tokens before the first one that the loss is on."""
    return next((k for k, label in enumerate(row["labels"]) if label != IGNORED), len(row["labels"]))


@dataclass(frozen=True)
class Pack:
    """Packs the examples of a batch into rows of equal width, in which examples do not attend to each other.

    Padding each example to the longest would waste half the work, and batches of equal lengths would each hold one kind of
    prompt, from which small models learn badly. Positions start from zero in every example, by which transformers recognises
    packed rows and masks the examples from each other. It does so only without an attention mask and a cache.

    Attributes:
        width: tokens in a row; a batch with a longer example has rows of its length.
        pad: padding token.
    """

    width: int
    pad: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Model inputs: input_ids, labels, position_ids and use_cache."""
        import torch

        width = max(self.width, *(len(row["input_ids"]) for row in rows))
        packed = _first_fit(rows, width)
        ids = torch.full((len(packed), width), self.pad)
        labels, positions = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for i, members in enumerate(packed):
            start = 0
            for row in members:
                end = start + len(row["input_ids"])
                ids[i, start:end] = torch.tensor(row["input_ids"])
                labels[i, start:end] = torch.tensor(row["labels"])
                positions[i, start:end] = torch.arange(end - start)
                start = end
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "use_cache": False}


def _first_fit(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Rows of at most `width` tokens; the longest examples are placed first, each in the first row with room."""
    packed: list[list[Row]] = []
    free: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        size = len(row["input_ids"])
        index = next((i for i, tokens in enumerate(free) if tokens >= size), len(free))
        if index == len(free):
            packed.append([])
            free.append(width)
        packed[index].append(row)
        free[index] -= size
    return packed


def response_tokens(row: Row) -> int:
    """The number of tokens of an example that the loss is on."""
    return sum(label != IGNORED for label in row["labels"])
