"""Thinking models: what is judged and measured starts after the reasoning block.

Templates with a switch turn reasoning off (``models.chat_templates``). Models without one write a block first, or continue one
that their template has opened.
"""

from bisect import bisect_left
from collections.abc import Sequence

from interp_transfer.models.chat_templates import render_chat
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.prompts.chats import Chat, Prompt
from interp_transfer.prompts.reasoning import CLOSE, answer_of, opens_reasoning


def prompt_texts(model: HookedModel, prompts: Sequence[Prompt]) -> list[str]:
    """The prompts as the model reads them."""
    tokenizer = tokenizer_of(model)
    return [render_chat(tokenizer, prompt) if isinstance(prompt, Chat) else prompt for prompt in prompts]


def without_reasoning(model: HookedModel, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[str]:
    """Completions without their reasoning blocks; empty where a block does not end."""
    opened = map(opens_reasoning, prompt_texts(model, prompts))
    return [answer_of(completion, begun) for completion, begun in zip(completions, opened, strict=True)]


def reasoning_lengths(model: HookedModel, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[int]:
    """How many tokens of each completion are its reasoning block; all of them where the block does not end."""
    tokenizer = tokenizer_of(model)
    texts = tokenizer.batch_decode([list(ids) for ids in completions], skip_special_tokens=False)
    lengths = []
    for ids, text, prompt in zip(completions, texts, prompt_texts(model, prompts), strict=True):
        if answer_of(text, opens_reasoning(prompt)) == text:
            lengths.append(0)
        elif CLOSE not in text:
            lengths.append(len(ids))
        else:
            closed = range(len(ids) + 1)
            lengths.append(bisect_left(closed, True, key=lambda end, ids=ids: CLOSE in tokenizer.decode(ids[:end])))
    return lengths
