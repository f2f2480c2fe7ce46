"""Collect paired activations: two models read the same texts, portion by portion, into memory or into a store on disk.

Each token of the target is paired with the source's activation after the same text (``activations.align``); for two models of
one tokenizer that is the same token.

A portion is written to a store together with the state of the collection, as a whole or not at all. So a collection that was
killed resumes after its last portion, and a finished one can be extended: pass the same texts again, followed by more. A hash
checks that they are the same.

Ranks (``distributed``) read every n-th text each. Each rank writes a store of its own, in ``store/rank-0`` and so on; when all
have finished, one manifest lists the shards of all ranks. The rows are those of a single process, ordered by rank.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.align import DEFAULT_STRATEGY, AlignmentReport, find_strategy
from interp_transfer.activations.store.manifest import MANIFEST, Column, columns_like, read_manifest
from interp_transfer.activations.store.writer import ROWS_PER_SHARD, StoreWriter, as_stored
from interp_transfer.mapping.distributed import check_same, gathered, rank_and_size
from interp_transfer.mapping.pair_reader import CHARACTERS_PER_TOKEN, PairReader
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.stored import (
    SOURCE,
    TARGET,
    merge_ranks,
    open_pairs,
    rank_folder,
    report_of,
    state_of,
    write_examples,
)
from interp_transfer.mapping.texts import Text, TextHash, portions, texts_of
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import site_name
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.texts import read_texts

__all__ = ["PairedActivations", "collect"]


def collect(
    source: HookedModel,
    target: HookedModel,
    texts: str | Path | Iterable[Any],
    source_sites: str | int | Sequence[str | int],
    target_sites: str | int | Sequence[str | int],
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
    """Collect the activations of two models over the same texts.

    Args:
        source: model that interventions come from.
        target: model that they are moved to.
        texts: what both models read: plain texts, or conversations (lists of messages with `role` and `content`), which each
            model reads in its own chat template. A list, a generator, a Hugging Face dataset, streamed or not, or a file or
            the name of a data set (``prompts.texts.read_texts``). With
            ``store``, a single process may read texts without end; without it, all rows have to fit into memory.
        source_sites: one site, or several: names, or numbers of blocks for their inputs.
        target_sites: as many; the first is paired with the first source site, and so on.
        strategy: how tokens are paired if the tokenizers differ, see ``activations.align``.
        store: folder to keep the rows in. The same call resumes after a kill; with more texts after the same ones, it adds
            theirs. All ranks must share the folder, and their number must stay the same. ``mapping.stored.open_pairs(folder)``
            opens it without the models.
        dtype: dtype of the rows: "float32", "bfloat16" or "float16"; that of the models if None.
        drop_bad: leave out rows that hold NaN or infinity on either side, and count them, instead of refusing them.
        too_long: treatment of texts that exceed the shorter context: "refuse", "cut" (plain texts only; at one place for both
            models) or "drop"; ``alignment`` counts both. See ``mapping.truncation``.
        text_column: the column that holds the texts, for rows such as a dataset's.
        max_texts: maximum number of texts, including those that are in the store already and those that are dropped.
        progress: show bars when it takes longer than two seconds.

    Returns:
        The pairs; with ``store``, everything in it, as columns on disk that are read when they are sliced. Every rank returns
        all rows.

    Raises:
        ValueError: for no texts, an unknown site, strategy or column, lists of different lengths, a tokenizer without offsets,
            a text beyond a context (unless ``too_long`` says otherwise), NaN or infinity (unless ``drop_bad``), or a store of
            other models, sites, texts, strategy or number of ranks. Errors of a rank number the texts that this rank reads.
    """
    find_strategy(strategy)
    reader = PairReader(source, target, tuple(_site_pairs(source_sites, target_sites)), strategy, too_long)
    rank, size = rank_and_size()
    texts = read_texts(texts) if isinstance(texts, str | Path) else texts
    folder = None if store is None else _folder(Path(store), rank, size)
    coming = texts_of(texts, text_column, max_texts, rank, size)
    # The first few texts decide the columns, show how tokens are paired, and reveal most errors early.
    first = reader.first(coming)
    meta = reader.meta(not isinstance(first[0], str), None if folder is None else _known(folder))
    block, shown = reader.read(first, 0)
    assert block is not None
    columns = columns_like(block, dtype)
    meta["computed_in"] = [str(block[name].dtype) for name in (SOURCE + reader.sites[0][0], TARGET + reader.sites[0][1])]
    if size > 1:
        number = len(texts) if isinstance(texts, Sized) else None
        request = {"dtype": dtype, "drop_bad": drop_bad, "max_texts": max_texts, "in a store": folder is not None}
        models = {side: meta[side]["fingerprint"] for side in ("source", "target")}  # ranks may load them from other folders
        check_same({**meta, **models, **request, "number of texts": number})
        meta["rank"] = [rank, size]
    rows = reader.rows_per_portion(columns)
    sink: StoreWriter | _Memory = _Memory(columns, drop_bad)
    if folder is not None:
        sink = StoreWriter(folder, columns, meta, shard_rows=min(ROWS_PER_SHARD, rows), drop_bad=drop_bad)
    rest = chain(first, coming)
    with _opened(sink), _bar(texts, max_texts, size, progress and rank == 0) as bar:
        done, report, seen = sink.resume_at, report_of(shown.strategy, sink.state), TextHash()
        if folder is not None:
            _skip(rest, folder, done, sink.state, seen, bar)
            if rank == 0 and shown.examples:
                write_examples(folder.parent if size > 1 else folder, shown.examples)
        if isinstance(texts, list | tuple):
            reader.check(islice(texts_of(texts, text_column, max_texts, rank, size), done, None), done)
        for portion in portions(rest, rows * CHARACTERS_PER_TOKEN):
            block, read = reader.read(portion, done, progress and rank == 0)
            for text in portion:
                seen.update(text)
            done, report = done + len(portion), report + read
            block = block or {name: torch.empty(c.shape(0), dtype=c.torch_dtype) for name, c in columns.items()}
            block["text_index"] = block["text_index"] * size + rank
            sink.append(block, upto=done, state=state_of(report, str(seen)))
            bar.update(len(portion))
    if isinstance(sink, _Memory):
        pairs = sink.pairs(reader, replace(report, examples=shown.examples))
    else:
        assert store is not None
        gathered("finished")
        if size > 1 and rank == 0:
            merge_ranks(Path(store), size)
        gathered("merged")
        pairs = open_pairs(store)
    if not len(pairs.alignment):
        raise ValueError(f"strategy={strategy!r} pairs no token of these texts: choose 'last_so_far'")
    return pairs


class _Memory:
    """Takes blocks as a `StoreWriter` does, and keeps them in memory."""

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

    def pairs(self, reader: PairReader, report: AlignmentReport) -> PairedActivations:
        """Join the blocks, of all ranks in the order of the texts; each column's blocks are freed once it is joined."""
        rows = {name: self._joined(name) for name in self._columns}
        ranks = gathered((rows, report, self._dropped))
        if len(ranks) > 1:
            order = torch.cat([theirs["text_index"] for theirs, _, _ in ranks]).argsort(stable=True)
            rows = {name: torch.cat([theirs[name] for theirs, _, _ in ranks])[order] for name in rows}
            report = sum((theirs for _, theirs, _ in ranks[1:]), ranks[0][1])
        return PairedActivations(
            {s: rows[SOURCE + s] for s, _ in reader.sites},
            {t: rows[TARGET + t] for _, t in reader.sites},
            reader.sites,
            rows["text_index"],
            rows["target_token"],
            identity(reader.source),
            identity(reader.target),
            report,
            dropped=sum(dropped for _, _, dropped in ranks),
        )

    def _joined(self, name: str) -> Tensor:
        blocks = self._blocks.pop(name)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _folder(store: Path, rank: int, size: int) -> Path:
    """The folder that this rank writes to."""
    before = (_known(store) or {}).get("ranks", 1 if (store / MANIFEST).is_file() else size)
    if before != size:
        raise ValueError(
            f"the store in {str(store)!r} was written by {before} ranks, and there are {size} now: start {before}, open it "
            "with open_pairs(folder), or choose another folder"
        )
    return store / rank_folder(rank) if size > 1 else store


def _opened(sink: StoreWriter | _Memory) -> AbstractContextManager[Any]:
    return sink if isinstance(sink, StoreWriter) else nullcontext()


def _bar(texts: Iterable[Any], most: int | None, size: int, progress: bool) -> Any:
    counts = [n for n in (len(texts) if isinstance(texts, Sized) else None, most) if n is not None]
    total = -(-min(counts) // size) if counts else None
    return progress_bar("collect", progress, total=total, unit="text")


def _skip(texts: Iterator[Text], folder: Path, stored: int, state: Mapping[str, Any], seen: TextHash, bar: Any) -> None:
    """Skip the texts that the store holds already, and refuse others in their place."""
    skipped = 0
    for text in islice(texts, stored):
        seen.update(text)
        skipped += 1
        bar.update()
    if not stored:
        return
    where = f"the store in {str(folder)!r} holds the rows of {stored} texts"
    if skipped < stored:
        raise ValueError(f"{where}, and only {skipped} are given: give them all, or open it with open_pairs(folder)")
    if str(seen) != state.get("texts"):
        raise ValueError(
            f"{where}, and the first {stored} that are given are not those: give the same texts in the same order, and "
            "further ones after them, or choose another folder"
        )


def _known(folder: Path) -> Mapping[str, Any] | None:
    return read_manifest(folder).meta if (folder / MANIFEST).is_file() else None


def _site_pairs(source: str | int | Sequence[str | int], target: str | int | Sequence[str | int]) -> Iterator[tuple[str, str]]:
    s, t = ([*map(site_name, x if isinstance(x, Sequence) and not isinstance(x, str) else [x])] for x in (source, target))
    if len(s) != len(t) or not s:
        raise ValueError(f"{len(s)} source sites and {len(t)} target sites: give one target site for each source site")
    yield from zip(s, t, strict=True)
