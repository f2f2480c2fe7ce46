"""Answers of a hooked model on this machine to whole texts, as they come."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from interp_transfer.interventions.generation import generate
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import tokenize

PORTION = 32
"""Texts that are answered before the answers are handed on, and opinions kept."""


@dataclass(frozen=True)
class Answer:
    """What came back for one conversation.

    Attributes:
        text: what the model said, or None.
        problem: why it said nothing: "kind: what happened".
        final: asking again would change nothing.
    """

    text: str | None
    problem: str = ""
    final: bool = True


def answered(model: HookedModel, texts: Sequence[str], max_new_tokens: int) -> Generator[tuple[int, Answer], None, None]:
    """The greedy answers with the numbers of their texts; to a text that leaves no room in the context, none."""
    room = context_length(model) - max_new_tokens
    fitting: list[int] = []
    for index, ids in enumerate(tokenize(model, texts, any_length=True)):
        if len(ids) > room:
            yield index, Answer(None, f"too long: {len(ids)} tokens, the judge reads {room}")
        else:
            fitting.append(index)
    for start in range(0, len(fitting), PORTION):
        part = fitting[start : start + PORTION]
        asked = [texts[i] for i in part]
        said = generate(model, asked, max_new_tokens=max_new_tokens, progress=False)
        yield from ((index, Answer(text)) for index, text in zip(part, said, strict=True))
