"""Texts that exceed a model's context: refused, cut, or dropped.

A text is cut for both models at one place, so that they read the same: the last place within both contexts where a token of
both models ends. The text before that place is tokenized as before, so its rows are the first rows of the whole text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from interp_transfer.activations.spans import token_spans
from interp_transfer.mapping.texts import Text
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.tokens import TextTooLong, tokenize, tokenizer_of
from interp_transfer.names import did_you_mean

TOO_LONG = ("refuse", "cut", "drop")
"""Treatments of a text that is longer than the shorter context."""


@dataclass(frozen=True)
class Readable:
    """Texts that both models can read.

    Attributes:
        texts: the texts to read.
        numbers: number of each among all texts.
        cut: how many of them were cut.
        dropped: how many texts were dropped.
    """

    texts: list[Text]
    numbers: list[int]
    cut: int = 0
    dropped: int = 0


def check_too_long(too_long: str, conversations: bool) -> None:
    """Check the treatment of texts that are too long.

    Args:
        too_long: the treatment.
        conversations: whether the texts are conversations, which cannot be cut.

    Raises:
        ValueError: naming the closest.
    """
    if too_long not in TOO_LONG:
        raise ValueError(f"unknown too_long={too_long!r}: {did_you_mean(too_long, TOO_LONG)}there are {', '.join(TOO_LONG)}")
    if too_long == "cut" and conversations:
        raise ValueError(
            "too_long='cut' is for plain texts, and these are conversations, whose templates would not be closed: use "
            "too_long='drop', or leave out their last messages"
        )


def readable(models: Sequence[HookedModel], texts: Sequence[Text], too_long: str, first_text: int) -> Readable:
    """Return the texts that both models can read.

    Args:
        models: the models.
        texts: plain texts, or conversations, which each model reads in its own chat template.
        too_long: "refuse" returns all texts as they are, and reading will refuse them; "cut" shortens those that are too long;
            "drop" leaves them out.
        first_text: number of the first text.

    Raises:
        ValueError: for a text without tokens, or one that cannot be cut.
    """
    numbers = list(range(first_text, first_text + len(texts)))
    if too_long == "refuse":
        return Readable(list(texts), numbers)
    beyond: set[int] = set()
    for model in models:
        read = tokenize(model, texts, first_text=first_text, any_length=True)
        beyond |= {index for index, ids in enumerate(read) if len(ids) > context_length(model)}
    if too_long == "cut":
        kept = [_cut(models, str(text), numbers[i]) if i in beyond else text for i, text in enumerate(texts)]
        return Readable(kept, numbers, cut=len(beyond))
    within = [index for index in range(len(texts)) if index not in beyond]
    return Readable([texts[i] for i in within], [numbers[i] for i in within], dropped=len(beyond))


@contextmanager
def suggest_truncation() -> Iterator[None]:
    """Add the choices of ``too_long`` to the error about a text that is too long."""
    try:
        yield
    except TextTooLong as error:
        raise ValueError(f"{error}, or collect with too_long='cut' or too_long='drop'") from error


def _cut(models: Sequence[HookedModel], text: str, number: int) -> str:
    """The text up to the last place within both contexts."""
    places: list[set[int]] = []
    for model in models:
        (spans,) = token_spans(tokenizer_of(model), [text])
        room = max(0, context_length(model) - int(spans.added.sum()))
        inside = (~spans.added).nonzero()[0][:room]
        whole = spans.sure[inside] == spans.most[inside]  # not within a character
        places.append(set(spans.most[inside][whole].tolist()))
    for place in sorted(set.intersection(*places) - {0}, reverse=True):
        short = text[:place]
        # A tokenizer that looks ahead may split the shorter text in another way, into more tokens.
        if all(0 < len(tokenize(model, [short], any_length=True)[0]) <= context_length(model) for model in models):
            return short
    raise ValueError(
        f"text {number} is longer than the models' contexts, and there is no place within them where a token of either ends: "
        "shorten it, or leave such texts out with too_long='drop'"
    )
