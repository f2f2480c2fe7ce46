"""Paired activations in a store on disk: used like those in memory, and read when they are needed.

A store of pairs has a column for each site of each side, ``text_index`` and ``target_token``. Its meta describes the request:
both models, sites, strategy; another request is refused. Its state describes the rows so far: how tokens were paired, and a
hash of the texts, so that a collection can be resumed with the same texts. ``examples.json`` shows how the first texts were
paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp_transfer.activations.align import COUNTS, AlignmentReport, Example
from interp_transfer.activations.store.manifest import join, read_manifest, write_manifest
from interp_transfer.activations.store.reader import Runs, Store, open_store
from interp_transfer.io import checked, hashed, named_errors, parse_json, typed, write_json
from interp_transfer.mapping.pairs import PairedActivations
from interp_transfer.mapping.row_blocks import StoredPart, side_by_side
from interp_transfer.models.identity import ModelIdentity

FORMAT = "interp_transfer.pairs/1"
SOURCE, TARGET = "source:", "target:"
"""Prefix of a column's name; the site follows."""

_EXAMPLES = "examples.json"
_INDEX_ROWS = 1 << 18  # rows of ``text_index`` that are read at a time


@dataclass(frozen=True, repr=False)
class StoredColumn:
    """Rows on disk: a column of a store, or several, concatenated. ``column[a:b]`` reads rows, ``column[:]`` all of them.

    Attributes:
        store: the store.
        names: names of the columns, from left to right.
    """

    store: Store
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows."""
        widths = [self.store.columns[name].width for name in self.names]
        return (len(self),) if widths == [None] else (len(self), sum(width or 1 for width in widths))

    @property
    def dtype(self) -> torch.dtype:
        """Stored dtype."""
        return self.store.columns[self.names[0]].torch_dtype

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, rows: int | slice) -> Tensor:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            stop = max(start, stop)
            if step != 1:
                raise ValueError(f"step {step}: a column is read in runs; take column[a:b][::step]")
            return side_by_side(self.store.read(start, stop, self.names), self.names)
        index = range(len(self))[rows]
        return self[index : index + 1][0]

    def __repr__(self) -> str:
        return f"StoredColumn({' + '.join(self.names)}, {tuple(self.shape)} {self.dtype} on disk)"


@dataclass(frozen=True, repr=False)
class StoredPairs(PairedActivations):
    """Paired activations whose columns are on disk (`StoredColumn`).

    Attributes:
        store: the store.
    """

    store: Store = field(kw_only=True)

    def in_memory(self) -> PairedActivations:
        """Return the same pairs with all rows in memory."""
        plain = {f.name: getattr(self, f.name) for f in fields(PairedActivations)}
        read = {side: {site: column[:] for site, column in plain[side].items()} for side in ("source", "target")}
        return PairedActivations(**{**plain, **read, "text_index": self.text_index[:], "target_token": self.target_token[:]})

    def shuffled(self, seed: int = 0, *, within_text: bool = False) -> "StoredPairs":
        """See ``PairedActivations.shuffled``."""
        if within_text:
            raise ValueError("pairs in a store are shuffled across texts only: collect without store= for within_text=True")
        moved = [name for column in (*self.target.values(), self.target_token) for name in column.names]
        store = self.store.exchanged(moved, seed)
        return replace(
            self,
            source={site: replace(column, store=store) for site, column in self.source.items()},
            target={site: replace(column, store=store) for site, column in self.target.items()},
            text_index=replace(self.text_index, store=store),
            target_token=replace(self.target_token, store=store),
            is_shuffled=True,
            store=store,
        )

    def part(self, texts: Bool[Tensor, " text"], pair: tuple[str, str] | None = None) -> StoredPart:
        """See ``PairedActivations.part``."""
        _, x, y = self.rows(pair)
        return StoredPart(self.store, x.names, y.names, self._runs(texts))

    @cached_property
    def _ends(self) -> tuple[Int[Tensor, " span"], Int[Tensor, " span"]]:
        """The text numbers in the order of the rows, and the row after the last of each."""
        numbers, lengths = [], []
        for rows in self.store.blocks(_INDEX_ROWS, self.text_index.names):
            texts, counts = side_by_side(rows, self.text_index.names).unique_consecutive(return_counts=True)
            numbers.append(texts)
            lengths.append(counts)
        none = torch.zeros(0, dtype=torch.long)
        return torch.cat([none, *numbers]), torch.cat([none, *lengths]).cumsum(0)

    def _texts(self) -> Int[Tensor, " text"]:
        return self._ends[0].unique()

    def _indices(self, texts: Bool[Tensor, " text"]) -> Int[Tensor, " row"]:
        return torch.cat([torch.arange(0), *(torch.arange(*run) for run in self._runs(texts))])

    def _runs(self, texts: Bool[Tensor, " text"]) -> Runs:
        """The rows of some texts, in the longest possible runs."""
        numbers, ends = self._ends
        chosen = torch.zeros(len(numbers) + 2, dtype=torch.int8)
        chosen[1:-1] = texts[numbers]
        edges = chosen.diff()
        begins = torch.cat([torch.zeros(1, dtype=torch.long), ends])
        starts, stops = (begins[(edges == sign).nonzero()[:, 0]].tolist() for sign in (1, -1))
        return list(zip(starts, stops, strict=True))

    def _side_by_side(self, columns: Sequence[StoredColumn]) -> StoredColumn:
        return StoredColumn(self.store, tuple(name for column in columns for name in column.names))

    def _where(self) -> str:
        return f", {self.store.dtype} in {str(self.store.folder)!r}"


def open_pairs(folder: str | Path) -> StoredPairs:
    """Open the pairs that ``collect(..., store=folder)`` has written so far, without the models.

    The checksum of each shard is compared before its first row is read, once in a process.

    Raises:
        ValueError: for a folder without such a store, or a damaged one.
    """
    store = open_store(folder)
    if store.meta.get("holds") != FORMAT:
        raise ValueError(f"the store in {str(folder)!r} holds no pairs of this package: give the store= of a collect(...)")
    examples = _read_examples(Path(folder))
    with named_errors(f"the store in {str(folder)!r} is damaged: its manifest does not describe pairs"):
        models = [checked(ModelIdentity, store.meta[side]) for side in ("source", "target")]
        sites = typed(tuple(map(tuple, store.meta["sites"])), tuple[tuple[str, str], ...])
        columns = {name for s, t in sites for name in (SOURCE + s, TARGET + t)} | {"text_index", "target_token"}
        if not sites or not columns <= store.columns.keys():
            raise ValueError("it lacks a column")
        report = report_of(typed(store.meta["strategy"], str), store.manifest.state)
        return StoredPairs(
            {s: StoredColumn(store, (SOURCE + s,)) for s, _ in sites},
            {t: StoredColumn(store, (TARGET + t,)) for _, t in sites},
            sites,
            StoredColumn(store, ("text_index",)),
            StoredColumn(store, ("target_token",)),
            models[0],
            models[1],
            replace(report, examples=examples),
            dropped=store.manifest.dropped,
            store=store,
        )


def rank_folder(rank: int) -> str:
    """Return the name of the folder, within a store, that a rank writes its own store to."""
    return f"rank-{rank}"


def merge_ranks(folder: Path, size: int) -> None:
    """Write one manifest that lists the shards of all ranks' stores, in the order of ranks.

    Raises:
        ValueError: for a rank whose store is not there.
    """
    names = [rank_folder(rank) for rank in range(size)]
    manifests = [read_manifest(folder / name) for name in names]
    reports = [report_of(one.meta["strategy"], one.state) for one in manifests]
    texts = hashed([one.state["texts"] for one in manifests])
    merged = join(dict(zip(names, manifests, strict=True)))
    meta = {name: value for name, value in merged.meta.items() if name != "rank"} | {"ranks": size}
    write_manifest(folder, replace(merged, meta=meta, state=state_of(sum(reports[1:], reports[0]), texts)))


def report_of(strategy: str, state: Mapping[str, Any]) -> AlignmentReport:
    """Return how tokens were paired, from a store's state; zeros for an empty state."""
    counts: dict[str, Any] = {name: typed(state.get(name, 0), int) for name in COUNTS}
    by_role = typed(state.get("by_role", {}), dict[str, list[int]])
    return AlignmentReport(strategy, by_role={role: (paired, count) for role, (paired, count) in by_role.items()}, **counts)


def state_of(report: AlignmentReport, texts: str) -> dict[str, Any]:
    """Return the state of a store.

    Args:
        report: on all texts in the store.
        texts: hash of these texts.
    """
    by_role = {role: list(counts) for role, counts in report.by_role.items()}
    return {**{name: getattr(report, name) for name in COUNTS}, "by_role": by_role, "texts": texts}


def write_examples(folder: Path, examples: Sequence[Example]) -> None:
    """Write how the first texts are paired into the store's folder."""
    write_json(folder / _EXAMPLES, [asdict(example) for example in examples])


def _read_examples(folder: Path) -> tuple[Example, ...]:
    path = folder / _EXAMPLES
    if not path.is_file():  # models of one tokenizer have none
        return ()
    with named_errors(f"{str(path)!r} is damaged", "; remove it, collecting again writes it anew"):
        plain = parse_json(path.read_text(encoding="utf-8"))
        for one in plain:
            one |= {side: [(piece, end) for piece, end in one[side]] for side in ("source", "target")}
        return tuple(checked(Example, one) for one in plain)
