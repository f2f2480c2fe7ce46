"""Texts from a list, a generator or a Hugging Face dataset, possibly without end.

They are taken one by one, in order, and hashed: a store must be resumed with the same texts.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from interp_transfer.activations.spans import Conversation
from interp_transfer.names import misplaced
from interp_transfer.prompts.chats import Chat, as_prompt

TEXTS_PER_PORTION = 4096

Text = str | Conversation


def texts_of(texts: Iterable[Any], column: str, most: int | None, rank: int = 0, size: int = 1) -> Iterator[Text]:
    """Return the texts of a list, a generator or a dataset, or a rank's share of them.

    Args:
        texts: strings, conversations, or rows (mappings) that hold either in a column, such as a dataset's.
        column: the column of the rows.
        most: maximum number of texts in all ranks together; all texts if None.
        rank: the rank, from 0.
        size: number of ranks. Each gets every ``size``-th text, or its own shards of a streamed dataset with enough of them.

    Raises:
        ValueError: at once for a dataset with splits, or an unknown column; while iterating for an item that
            is no text, or texts of two kinds.
    """
    if most is not None and most < 1:
        raise ValueError(f"max_texts={most}: give at least 1, or None for all of them")
    if isinstance(texts, Mapping):
        raise ValueError(f"texts is a {type(texts).__name__} of {', '.join(map(str, texts))}: give one of them, texts[...]")
    if not isinstance(texts, Iterable):
        raise misplaced(texts, "texts", "give a list of texts or chats, such as task.texts('train')")
    names = getattr(texts, "column_names", None)
    if isinstance(names, list) and names:
        _check_column(column, names)
        texts = texts.select_columns([column]) if hasattr(texts, "select_columns") else texts  # type: ignore[attr-defined]
    if size > 1:
        texts, most = _share(texts, rank, size), None if most is None else len(range(rank, most, size))
    return _of_one_kind(islice(texts, most), column)


def _share(texts: Any, rank: int, size: int) -> Iterable[Any]:
    from datasets import IterableDataset
    from datasets.distributed import split_dataset_by_node

    # Not a map-style dataset: it is split into stretches, whose limits move when texts are added to it.
    texts = texts.to_iterable_dataset() if hasattr(texts, "to_iterable_dataset") else texts
    if isinstance(texts, IterableDataset):
        return split_dataset_by_node(texts, rank, size)
    return islice(texts, rank, None, size)


def portions(texts: Iterable[Text], characters: int) -> Iterator[list[Text]]:
    """Yield texts in lists of about so many characters; where a list ends depends only on its own texts."""
    held, size = [], 0
    for text in texts:
        held.append(text)
        size += len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)
        if size >= characters or len(held) >= TEXTS_PER_PORTION:
            yield held
            held, size = [], 0
    if held:
        yield held


class TextHash:
    """A hash of all texts so far and their boundaries."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, text: Text) -> None:
        """Add one text."""
        plain = text if isinstance(text, str) else json.dumps([dict(message) for message in text], sort_keys=True)
        raw = plain.encode("utf-8", "surrogatepass")
        self._hash.update(len(raw).to_bytes(8, "little") + raw)

    def __str__(self) -> str:
        return self._hash.hexdigest()


def _of_one_kind(texts: Iterable[Any], column: str) -> Iterator[Text]:
    kind: type | None = None
    for index, item in enumerate(texts):
        text = item
        if isinstance(item, Mapping):
            _check_column(column, list(item))
            text = item[column]
        text = text.to_list() if isinstance(text, Chat) else text
        try:
            as_prompt(text)
        except ValueError:
            where = f"text {index}" if text is item else f"column {column!r} of row {index}"
            raise ValueError(
                f"{where} holds {_shown(text)}, neither a string nor a conversation: give strings, or lists of messages with "
                "role and content"
            ) from None
        own = str if isinstance(text, str) else list
        if kind not in (None, own):
            raise ValueError(f"texts holds strings and conversations (text {index} is unlike those before it): give one kind")
        kind = own
        yield text


def _check_column(column: str, names: Sequence[str]) -> None:
    if column not in names:
        raise ValueError(f"there is no column {column!r} among {', '.join(names)}: name the one of the texts, text_column=...")


def _shown(item: Any) -> str:
    shown = repr(item)
    return f"{shown[:60]}..." if len(shown) > 60 else shown  # noqa: PLR2004
