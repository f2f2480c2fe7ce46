"""Collecting paired activations: both models read the same texts, portion by portion, into memory or into a store on disk.

Each token of the target is paired with what the source holds where it has read the same text (``activations.align``); for two
models of one tokenizer that is the same token.

In a store, a portion is there as a whole or not at all, together with what is known about all texts up to it. So a collection
that was killed goes on where it was, and one that was finished goes on with what further texts there are: give the same texts
again, and more behind them. That they are the same is checked by their hash.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.align import (
    DEFAULT_STRATEGY,
    EXAMPLES,
    AlignmentReport,
    align_spans,
    find_strategy,
    same_tokens,
)
from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS, Activations, capture
from interp_transfer.activations.spans import TokenSpans, chat_spans, token_spans
from interp_transfer.activations.store.manifest import MANIFEST, Column, columns_like, read_manifest
from interp_transfer.activations.store.writer import ROWS_PER_SHARD, StoreWriter, as_stored
from interp_transfer.io import hashed
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.processes import crew, together
from interp_transfer.mapping.stored import FORMAT, SOURCE, TARGET, open_pairs, report_of, state_of, write_examples
from interp_transfer.mapping.texts import Text, TextHash, portions, texts_of
from interp_transfer.mapping.truncation import Readable, check_too_long, readable, with_choices
from interp_transfer.models.hooked_model import HookedModel, context_length
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of

__all__ = ["PairedActivations", "collect"]

ROWS_PER_PORTION = 1 << 17
BYTES_PER_PORTION = 1 << 29
"""What is read at a time, about: whichever is less."""

CHARACTERS_PER_TOKEN = 4


@together
def collect(
    source: HookedModel,
    target: HookedModel,
    texts: Iterable[Any],
    source_sites: str | Sequence[str],
    target_sites: str | Sequence[str],
    *,
    strategy: str = DEFAULT_STRATEGY,
    store: str | Path | None = None,
    dtype: str | None = None,
    drop_bad: bool = False,
    too_long: str = "refuse",
    text_column: str = "text",
    max_texts: int | None = None,
    progress: bool = True,
) -> PairedActivations:
    """Activations of both models over the same texts.

    Several processes (``processes``) that make this call share the reading: of the portions that one process would read, each
    reads every n-th, with the models that it has loaded. All of them need all texts. The first alone writes to the store,
    which is then what one process would have written; without a store each gets all rows.

    Args:
        source: model that interventions come from.
        target: model that they go to.
        texts: what both read: plain texts, or conversations (lists of messages with `role` and `content`), which each model
            reads in its own chat template. A list, a generator, a dataset of Hugging Face, streamed or not. With ``store``
            they may be without an end; without, all rows have to fit into memory.
        source_sites: one site, or several.
        target_sites: as many; the first belongs to the first, and so on.
        strategy: how tokens are paired where the tokenizers differ, see ``activations.align``.
        store: folder to keep the rows in. Killed at whatever moment, the same call goes on where it was; with more texts
            behind the same ones, it adds theirs. ``mapping.stored.open_pairs(folder)`` opens it without the models.
        dtype: what to keep rows as: "float32", "bfloat16" or "float16"; as the models compute them, unless said.
        drop_bad: leave out rows that hold NaN or infinity on either side, and count them, instead of refusing them.
        too_long: what to do about texts that are longer than the shorter of the two contexts: "refuse" them, "cut" them for
            both models at one place (plain texts alone), or "drop" them; ``alignment`` counts both. See ``mapping.lengths``.
        text_column: which column holds the texts, where rows come, as from a dataset.
        max_texts: take no more texts than this, those that are in the store already and those that are dropped included.
        progress: show bars when it takes longer than two seconds.

    Returns:
        The pairs; with ``store``, all that are in it, as columns on disk that are read as they are sliced.

    Raises:
        ProcessError: if another process is gone, or stopped with an error.
        ValueError: for no texts, an unknown site, strategy or column, lists of different lengths, a tokenizer that does not
            tell where in a text its tokens are, a text beyond a context (unless ``too_long`` says otherwise), NaN or infinity
            (unless ``drop_bad``), or a store of other models, sites, texts or of another strategy.
    """
    find_strategy(strategy)
    request = _Request(source, target, tuple(_site_pairs(source_sites, target_sites)), strategy, too_long)
    coming = texts_of(texts, text_column, max_texts)
    first = request.first(coming)
    meta = request.meta(not isinstance(first[0], str), None if store is None else _known(Path(store)))
    company = crew()
    progress = progress and company.first
    # The first few texts say what the columns are, show how tokens are paired, and fail early what is going to fail.
    block, shown = request.read(first, 0)
    columns = columns_like(block, dtype)
    meta["computed_in"] = [str(block[name].dtype) for name in (SOURCE + request.sites[0][0], TARGET + request.sites[0][1])]
    rows = request.rows_at_a_time(columns)
    company.agree(_asked(meta, columns, {"drop_bad": drop_bad, "max_texts": max_texts, "in a store": store is not None}))
    sink = _sink(store, columns, meta, min(ROWS_PER_SHARD, rows), drop_bad)
    takers = range(company.count) if store is None else range(1)
    rest = chain(first, coming)
    with _opened(sink), _bar(texts, max_texts, progress) as bar:
        done, known = company.from_first(_reached(sink), "store")
        report, seen = report_of(shown.strategy, known), TextHash()
        if store is not None:
            _check_seen(Path(store))
            _skip(rest, Path(store), done, known, seen, bar)
        if isinstance(sink, StoreWriter) and shown.examples:
            write_examples(sink.folder, shown.examples)
        if isinstance(texts, list | tuple):
            request.check(islice(texts_of(texts, text_column, max_texts), done, None), done)
        coming = portions(rest, rows * CHARACTERS_PER_TOKEN)
        while True:
            turn = list(islice(coming, company.count))
            mine = None
            if company.rank < len(turn):
                mine = request.read(turn[company.rank], done + sum(map(len, turn[: company.rank])), progress)
            if company.count > 1:
                company.agree({"texts": _told(turn)})
            for reader, portion in enumerate(turn):
                for text in portion:
                    seen.update(text)
                done += len(portion)
                read = company.handed(mine, reader, takers, "rows")
                if sink is not None and read is not None:
                    block, found = read
                    report = report + found
                    sink.append(block, upto=done, state=state_of(report, str(seen)))
                bar.update(len(portion))
            if not turn:
                break
    report = company.from_first(report, "report")  # and so to all that the store is written
    if not len(report):
        raise ValueError(f"strategy={strategy!r} pairs no token of these texts: choose 'last_so_far'")
    if isinstance(sink, _Memory):
        return sink.pairs(request, replace(report, examples=shown.examples))
    assert store is not None
    return open_pairs(store)


@dataclass(frozen=True)
class _Request:
    """What is collected: everything but the texts.

    Attributes:
        source: the one model.
        target: the other.
        sites: of either, in pairs.
        strategy: how their tokens are paired, if they are not the same.
        too_long: what is done about texts that one of them cannot read.
    """

    source: HookedModel
    target: HookedModel
    sites: tuple[tuple[str, str], ...]
    strategy: str
    too_long: str

    def __post_init__(self) -> None:
        for s, t in self.sites:
            check_site(self.source, s)
            check_site(self.target, t)
        check_too_long(self.too_long, conversations=False)

    @cached_property
    def tokenizers(self) -> list[str]:
        """Their fingerprints, which take a while where vocabularies are large."""
        return [tokenizer_fingerprint(model) for model in (self.source, self.target)]

    @property
    def alike(self) -> bool:
        """Whether both models split texts into the same tokens."""
        return self.tokenizers[0] == self.tokenizers[1]

    @property
    def pairing(self) -> str:
        """How tokens are paired."""
        return "same_tokens" if self.alike else self.strategy

    def first(self, coming: Iterator[Text]) -> list[Text]:
        """Takes the first few texts, and as many more as it takes until there is one that both models can read."""
        last = first = list(islice(coming, EXAMPLES))
        if not first:
            raise ValueError("no texts to collect from: give a list of the texts that both models should read")
        check_too_long(self.too_long, conversations=not isinstance(first[0], str))
        while not self._readable(last, len(first) - len(last)).texts:
            last = list(islice(coming, EXAMPLES))
            if not last:
                raise ValueError(f"all {len(first)} texts are longer than the models' contexts: cut or split them")
            first = [*first, *last]
        return first

    def meta(self, talks: bool, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """What tells this request from others.

        Args:
            talks: whether conversations are read.
            known: what a store was made for. A model that it knows by another name is the same model.
        """
        models = {"source": self.source, "target": self.target}
        templates = [hashed(tokenizer_of(model).chat_template) for model in models.values()]
        return {
            "holds": FORMAT,
            **{side: asdict(_named(identity(model), (known or {}).get(side))) for side, model in models.items()},
            "tokenizers": self.tokenizers,
            "sites": [list(pair) for pair in self.sites],
            "strategy": self.pairing,
            # Not said where it is "refuse": stores from before there was a choice do not say it either.
            **({} if self.too_long == "refuse" else {"too_long": self.too_long}),
            "reads": {"chat templates": templates} if talks else "plain texts",
        }

    def rows_at_a_time(self, columns: Mapping[str, Column]) -> int:
        """How many rows a portion of texts should have, about."""
        numbers = sum(column.width or 1 for column in columns.values())
        return max(1, min(ROWS_PER_PORTION, BYTES_PER_PORTION // (4 * numbers)))

    @with_choices()
    def check(self, texts: Iterable[Text], first_text: int) -> None:
        """Refuse texts that either model cannot read, before any is read; of several processes, each looks at its share."""
        for number, portion in enumerate(portions(texts, ROWS_PER_PORTION * CHARACTERS_PER_TOKEN)):
            first_text += len(portion)
            if number % crew().count != crew().rank:
                continue
            plain = all(isinstance(text, str) for text in portion)
            sides: Any = (portion, portion) if plain else self._sides(portion)[:2]
            models = [self.source, self.target]
            if plain and self.alike:  # the same tokens: the one that can read fewer of them speaks for both
                models = [min(models, key=context_length)]
            for model, side in zip(models, sides, strict=False):
                tokenize(model, side, first_text=first_text - len(portion), any_length=self.too_long != "refuse")

    @with_choices()
    def read(self, texts: Sequence[Text], first_text: int, progress: bool = False) -> tuple[dict[str, Tensor], AlignmentReport]:
        """The rows of some texts, by column, and how their tokens were paired."""
        kept = self._readable(texts, first_text)
        if not kept.texts:
            return self._no_rows, AlignmentReport(self.pairing, 0, 0, texts_dropped=kept.dropped)
        left_texts, right_texts, spans = self._sides(kept.texts)
        how: dict[str, Any] = {"first_text": first_text, "allow_bad": True, "progress": progress}
        if left_texts is right_texts and spans is None:  # one tokenizer and one text: tokenized once, for the shorter context
            how["ids"] = tokenize(min(self.source, self.target, key=context_length), left_texts, first_text=first_text)
        left = capture(self.source, left_texts, list(dict.fromkeys(s for s, _ in self.sites)), **how)
        right = capture(self.target, right_texts, list(dict.fromkeys(t for _, t in self.sites)), **how)
        if spans is None:
            alignment = same_tokens(len(right.token))
            _check_tokens(left, right.token, "the target")
        else:
            alignment = align_spans(*spans, self.strategy)
            for acts, side in ((left, spans[0]), (right, spans[1])):
                _check_tokens(acts, torch.from_numpy(np.concatenate([one.ids for one in side])), "its offsets")
        block = {
            **{SOURCE + site: alignment.gather(rows) for site, rows in left.items()},
            **{TARGET + site: rows[alignment.target] for site, rows in right.items()},
            "text_index": torch.tensor(kept.numbers)[right.text_index[alignment.target] - first_text],
            "target_token": right.token[alignment.target],
        }
        self._no_rows.update({name: rows[:0].clone() for name, rows in block.items()})
        return block, replace(alignment.report, texts_cut=kept.cut, texts_dropped=kept.dropped)

    @cached_property
    def _no_rows(self) -> dict[str, Tensor]:
        """A block of texts that are all dropped; what its columns are is known once a block was read."""
        return {}

    def _readable(self, texts: Sequence[Text], first_text: int) -> Readable:
        return readable((self.source, self.target), texts, self.too_long, first_text)

    def _sides(self, texts: Sequence[Text]) -> tuple[list[str], list[str], tuple[list[TokenSpans], list[TokenSpans]] | None]:
        """What each model reads, and the spans of its tokens where they are needed to pair them."""
        plain, talks = [t for t in texts if isinstance(t, str)], [t for t in texts if not isinstance(t, str)]
        if plain and self.alike:
            return plain, plain, None
        tokenizers = tokenizer_of(self.source), tokenizer_of(self.target)
        if plain:
            left, right = (token_spans(tokenizer, plain) for tokenizer in tokenizers)
            return plain, plain, (left, right)
        (left_texts, left), (right_texts, right) = (chat_spans(tokenizer, talks) for tokenizer in tokenizers)
        return left_texts, right_texts, None if self.alike else (left, right)


class _Memory:
    """Takes blocks as a `StoreWriter` does, and keeps them."""

    def __init__(self, columns: Mapping[str, Column], drop_bad: bool) -> None:
        self.state: dict[str, Any] = {}
        self.resume_at = self._dropped = 0
        self._columns, self._drop_bad = columns, drop_bad
        self._blocks: dict[str, list[Tensor]] = {name: [] for name in columns}

    def append(self, columns: Mapping[str, Tensor], *, upto: int, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Add a block of rows."""
        block, dropped = as_stored(columns, self._columns, self._drop_bad)
        self._dropped += dropped
        for name, rows in block.items():
            self._blocks[name].append(rows)

    def pairs(self, request: _Request, report: AlignmentReport) -> PairedActivations:
        """All of them; the blocks are let go of as they are joined."""
        return PairedActivations(
            {s: self._joined(SOURCE + s) for s in dict.fromkeys(s for s, _ in request.sites)},
            {t: self._joined(TARGET + t) for t in dict.fromkeys(t for _, t in request.sites)},
            request.sites,
            self._joined("text_index"),
            self._joined("target_token"),
            identity(request.source),
            identity(request.target),
            report,
            dropped=self._dropped,
        )

    def _joined(self, name: str) -> Tensor:
        blocks = self._blocks.pop(name)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _sink(
    store: str | Path | None, columns: Mapping[str, Column], meta: Mapping[str, Any], shard_rows: int, drop_bad: bool
) -> StoreWriter | _Memory | None:
    """What takes the rows in this process: of a store there is one writer, and what the others read goes to it."""
    if store is None:
        return _Memory(columns, drop_bad)
    return StoreWriter(store, columns, meta, shard_rows=shard_rows, drop_bad=drop_bad) if crew().first else None


def _reached(sink: StoreWriter | _Memory | None) -> tuple[int, dict[str, Any]]:
    """How many texts are in already, and what is known about them."""
    return (0, {}) if sink is None else (sink.resume_at, sink.state)


def _asked(meta: Mapping[str, Any], columns: Mapping[str, Column], further: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same in all processes: everything but the names by which they know the models."""
    models = {side: meta[side]["fingerprint"] for side in ("source", "target")}
    return {**meta, **models, "dtype": {name: column.dtype for name, column in columns.items()}, **further}


def _told(turn: Sequence[Sequence[Text]]) -> str:
    """The texts that are read next, briefly."""
    seen = TextHash()
    for portion in turn:
        for text in portion:
            seen.update(text)
    return f"the next {sum(map(len, turn))} with the hash {str(seen)[:12]}"


def _check_seen(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"rank {crew().rank} does not see the store in {str(folder)!r}: give a folder that all processes share"
        )


def _opened(sink: StoreWriter | _Memory | None) -> AbstractContextManager[Any]:
    return sink if isinstance(sink, StoreWriter) else nullcontext()


def _bar(texts: Iterable[Any], most: int | None, progress: bool) -> Any:
    counts = [n for n in (len(texts) if hasattr(texts, "__len__") else None, most) if n is not None]  # type: ignore[arg-type]
    how: dict[str, Any] = {"unit": "text", "delay": SECONDS_BEFORE_PROGRESS, "leave": False}
    return tqdm(desc="collect", total=min(counts, default=None), disable=not progress, **how)


def _skip(texts: Iterator[Text], folder: Path, reached: int, known: Mapping[str, Any], seen: TextHash, bar: Any) -> None:
    """Pass over the texts that are in already, and refuse others than those."""
    given = 0
    for text in islice(texts, reached):
        seen.update(text)
        given += 1
        bar.update()
    if not reached:
        return
    where = f"the store in {str(folder)!r} holds the rows of {reached} texts"
    if given < reached:
        raise ValueError(f"{where}, and only {given} are given: give them all, or open it with open_pairs(folder)")
    if str(seen) != known.get("texts"):
        raise ValueError(
            f"{where}, and the first {reached} that are given are not those: give the same texts in the same order, and "
            "further ones behind them, or choose another folder"
        )


def _known(folder: Path) -> Mapping[str, Any] | None:
    return read_manifest(folder).meta if (folder / MANIFEST).is_file() else None


def _named(model: ModelIdentity, known: Any) -> ModelIdentity:
    """The same model, by the name under which a store knows it."""
    same = isinstance(known, dict) and known.get("fingerprint") == model.fingerprint
    return replace(model, name=known["name"]) if same else model


def _check_tokens(acts: Activations, expected: Int[Tensor, " row"], whose: str) -> None:
    if not torch.equal(acts.token, expected.to(acts.token)):
        raise ValueError(f"{acts.model.name} reads other tokens than {whose} tell: its tokenizer was changed after loading")


def _site_pairs(source: str | Sequence[str], target: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    s, t = ([x] if isinstance(x, str) else list(x) for x in (source, target))
    if len(s) != len(t) or not s:
        raise ValueError(f"{len(s)} source sites and {len(t)} target sites: give one target site for each source site")
    yield from zip(s, t, strict=True)
