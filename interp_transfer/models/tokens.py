"""Token ids of texts, as the model's own tokenizer makes them."""

from collections.abc import Sequence
from typing import Any

from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import _LOADED, _tokenizer_hash


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that turns texts into this model's tokens.

    For models loaded here it is the checkpoint's own, as transformers loads it: the wrapper's copy may have been told to
    prepend a BOS that the checkpoint's own tokenizer does not add.
    """
    known = _LOADED.get(model)
    tok = known.tokenizer if known and known.tokenizer is not None else model.tokenizer
    if tok is None:
        raise ValueError("this model has no tokenizer: wrap it with one, or use load_model(model, tokenizer=...)")
    return tok


class TextTooLong(ValueError):
    """A text has more tokens than the model can read at once."""


def tokenize(model: HookedModel, texts: Sequence[str], *, first_text: int = 0, any_length: bool = False) -> list[list[int]]:
    """Token ids of each text, as the model's own tokenizer makes them by default, without padding.

    A text that already begins (or ends) with the special token that the tokenizer adds does not get it twice.

    Args:
        model: any hooked model.
        texts: plain texts.
        first_text: what errors call the first of them.
        any_length: return texts beyond the model's context too, instead of refusing them.

    Raises:
        ValueError: for a text that is not a string or has no tokens, or (as `TextTooLong`) that exceeds the model's context.
    """
    tok = tokenizer_of(model)
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise ValueError(f"text {first_text + bad} is a {type(texts[bad]).__name__}, not a string: give a list of strings")
    if not len(texts):
        return []
    rows = without_doubles([list(ids) for ids in tok(list(texts), verbose=False)["input_ids"]], tok)
    limit = context_length(model)
    for index, (ids, text) in enumerate(zip(rows, texts, strict=True), first_text):
        if not ids:
            raise ValueError(f"text {index} ({text!r}) has no tokens: leave it out")
        if len(ids) > limit and not any_length:
            raise TextTooLong(f"text {index} has {len(ids)} tokens, the model's context is {limit}: shorten or split it")
    return rows


def without_doubles(rows: list[list[int]], tok: Any) -> list[list[int]]:
    """Token ids less the special token that a text held already and that the tokenizer then put beside it."""
    # Only what the tokenizer adds by itself can be there twice: without that, a doubled token is the text's own.
    some = tok("a", verbose=False)["input_ids"]
    first = some[0] if len(some) > 1 and some[0] == tok.bos_token_id else None
    last = some[-1] if len(some) > 1 and some[-1] == tok.eos_token_id else None
    rows = [ids[1:] if first is not None and ids[:2] == [first, first] else ids for ids in rows]
    return [ids[:-1] if last is not None and ids[-2:] == [last, last] else ids for ids in rows]


def tokenizer_fingerprint(model: HookedModel) -> str:
    """A hash that two models share exactly if they turn every text into the same tokens."""
    return _tokenizer_hash(tokenizer_of(model), specials=True)[:16]
