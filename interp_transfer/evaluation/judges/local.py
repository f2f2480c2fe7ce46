"""Greedy answers of a hooked model on this machine to rendered texts."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from interp_transfer.interventions.generation import generate
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import tokenize

PORTION = 32
"""Number of texts after which answers are yielded, so that their opinions are stored."""


@dataclass(frozen=True)
class Answer:
    """A model's answer to one conversation.

    Attributes:
        text: the answer, or None.
        problem: why there is none: "kind: what happened".
        final: whether another request would give the same.
    """

    text: str | None
    problem: str = ""
    final: bool = True


def answered(model: HookedModel, texts: Sequence[str], max_new_tokens: int) -> Generator[tuple[int, Answer], None, None]:
    """Yield greedy answers with the indices of their texts. A text that leaves no room in the context has none."""
    room = context_length(model) - max_new_tokens
    fitting: list[int] = []
    for index, ids in enumerate(tokenize(model, texts, any_length=True)):
        if len(ids) > room:
            yield index, Answer(None, f"too long: {len(ids)} tokens, the judge reads {room}")
        else:
            fitting.append(index)
    for start in range(0, len(fitting), PORTION):
        portion = fitting[start : start + PORTION]
        answers = generate(model, [texts[i] for i in portion], max_new_tokens=max_new_tokens, progress=False)
        yield from ((index, Answer(text)) for index, text in zip(portion, answers, strict=True))
