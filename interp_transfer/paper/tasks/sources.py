"""Reading the paper's data sets: from the Hugging Face hub, or from a local copy, and only when a row is asked for.

Columns are checked as soon as a data set is there. What goes wrong (no network, a gated or missing data set, a file that
cannot be read, other columns) is one line that names the data set and says how to use a local copy.
"""

import random
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from interp_transfer.io import atomic_write
from interp_transfer.paper.tasks.files import Files, local_splits, reader_of
from interp_transfer.paper.tasks.records import PAPER

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a data set lives and what it must hold.

    Attributes:
        key: short name, as `data_files` uses it.
        columns: the columns that are used. `"question|Question"` accepts either name and calls it by the first.
        hub: id on the Hugging Face hub; None where the authors' copy is not known.
        splits: the data set's own splits.
        configs: which configuration holds each split, where it has several.
        urls: where the split files lie, for data outside the hub.
        optional: columns that are used where they exist.
        about: what else is known: sizes, whether it is gated.
    """

    key: str
    columns: tuple[str, ...]
    hub: str | None = None
    splits: tuple[str, ...] = ("train",)
    configs: Mapping[str, str] = field(default_factory=dict, hash=False)
    urls: Mapping[str, str] = field(default_factory=dict, hash=False)
    optional: tuple[str, ...] = ()
    about: str = ""

    @property
    def name(self) -> str:
        """The data set's id, or its key where it has none."""
        return self.hub or self.key


def source(key: str, **changes: Any) -> Source:
    """The data set of this key in paper.toml, with the changes that are passed."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in PAPER["sources"][key].items()}
    return Source(key, **{**plain, **changes})


@dataclass(frozen=True)
class DataSet:
    """A source, and where it is read from. Every split is read once, when it is first asked for.

    Attributes:
        source: what is read.
        task: the task that reads it, for messages.
        files: a local copy; None reads from the hub.
        main: whether it is the data set that a bare `data_files=path` stands for.
    """

    source: Source
    task: str
    files: Files | None = None
    main: bool = True
    _read: dict[str, list[Row]] = field(default_factory=dict, repr=False, compare=False)
    _local: dict[str, list[Path]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The own splits that can be read: the source's, or those that the local copy has."""
        if self.files is None:
            return self.source.splits
        return tuple(self._files())

    def rows(self, *splits: str) -> list[Row]:
        """The rows of these own splits, or of all, with the source's columns.

        Raises:
            ValueError: if they cannot be read or lack a column.
        """
        return [row for split in splits or self.splits for row in self._split(split)]

    def sample(self, n: int, seed: int, split: str = "train") -> list[Row]:
        """`n` random rows, or all if there are fewer. From the hub the data are streamed: they may be larger than any disk.

        Streamed rows are drawn from a moving window of 10,000, so they come from the beginning of the data.
        """
        if self.files is not None:
            rows = self._split(split)
            return random.Random(seed).sample(rows, min(n, len(rows)))
        stream = self._load(split, streaming=True)
        try:
            first = list(islice(stream.shuffle(seed=seed, buffer_size=10_000), n))
        except _failures() as error:
            raise self._unreachable(error) from error
        return self._checked(list(first[0]) if first else [], first)

    def _split(self, split: str) -> list[Row]:
        if split not in self._read:
            data = self._load(split)
            self._read[split] = self._checked(data.column_names, data)
        return self._read[split]

    def _load(self, split: str, *, streaming: bool = False) -> Any:
        if self.files is None and self.source.hub is None and not self.source.urls:
            raise ValueError(f"{self.task}: {self.source.about}; {self._remedy()}")
        import datasets  # heavy, and not needed to describe a task

        try:
            if self.files is not None:
                return _local(self._present(split))
            if self.source.urls:
                return _local([_download(self.source.urls[split], self.source.key)])
            assert self.source.hub is not None
            load: Any = datasets.load_dataset  # its overloads know no `streaming` that is a variable
            return load(self.source.hub, self.source.configs.get(split), split=split, streaming=streaming)
        except _failures() as error:
            raise self._unreachable(error) from error

    def _present(self, split: str) -> list[Path]:
        files = self._files()
        if split not in files:
            raise ValueError(
                f"no split {split!r}, only {', '.join(files)}; name the files after the splits, or give a mapping from split "
                f"to files"
            )
        return files[split]

    def _files(self) -> dict[str, list[Path]]:
        if not self._local:
            assert self.files is not None
            try:
                self._local.update(local_splits(self.files, self.source.splits))
            except ValueError as error:
                raise ValueError(f"{self.task}: {error} (for {self.source.name})") from None
        return self._local

    def _checked(self, found: Sequence[str], rows: Iterable[Row]) -> list[Row]:
        names = {}
        for column in self.source.columns:
            spelled = [name for name in column.split("|") if name in found]
            if not spelled:
                wanted = ", ".join(c.replace("|", " or ") for c in self.source.columns)
                raise ValueError(
                    f"{self.task}: the data set {self.source.name}{self._where()} must have the columns {wanted}; it has "
                    f"{', '.join(found) or 'none'}, so {column.replace('|', ' or ')} is missing"
                )
            names[column.split("|")[0]] = spelled[0]
        names |= {column: column for column in self.source.optional if column in found}
        return [{ours: row[theirs] for ours, theirs in names.items()} for row in rows]

    def _unreachable(self, error: Exception) -> ValueError:
        reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])[:200]
        said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        if self.files is not None:
            return ValueError(f"{self.task}: cannot read the local copy of {self.source.name}{self._where()} ({said})")
        return ValueError(
            f"{self.task}: cannot load the data set {self.source.name} ({said}): there may be no network, or it is gated, or "
            f"gone; {self._remedy()}"
        )

    def _remedy(self) -> str:
        files = "'folder-or-file.jsonl'" if self.main else f"{{'{self.source.key}': 'folder-or-file.jsonl'}}"
        columns = ", ".join(column.replace("|", " or ") for column in self.source.columns)
        call = f"load_task({self.task!r}, edition='paper', data_files={files})"
        return f"give a local copy (JSON lines, CSV or Parquet with the columns {columns}): {call}"

    def _where(self) -> str:
        return "" if self.files is None else f" (from {self.files})"


def open_data(task: str, sources: Sequence[Source], files: Files | Mapping[str, Files] | None) -> dict[str, DataSet]:
    """The data sets of a task, none of them read yet.

    Args:
        task: its name.
        sources: the first is the main one, which a bare path, a list, or a mapping from splits is a copy of.
        files: local copies. A mapping from the sources' keys gives each its own, as does a folder in which files or folders
            have them as names; or files the names of all splits of one, if no other has such splits. The others are read from
            the hub.

    Raises:
        ValueError: for a mapping whose keys are neither sources nor splits.
    """
    keys = [source.key for source in sources]
    local: dict[str, Files] = {}
    if isinstance(files, str | Path) and Path(files).is_dir():
        entries = [entry for entry in Path(files).iterdir() if not entry.name.startswith(".")]
        there = {entry.name.partition(".")[0]: entry for entry in sorted(entries, reverse=True)}
        counts = Counter(name for s in sources for name in s.splits)
        named = [s for s in sources[1:] if all(counts[name] == 1 and name in there for name in s.splits)]
        by_split = {s.key: {name: there[name] for name in s.splits} for s in named}
        files = {key: there[key] for key in keys if key in there} | by_split or files
    if isinstance(files, Mapping) and files and set(files) <= set(keys):
        local = {key: value for key, value in files.items() if value is not None}
    elif isinstance(files, Mapping) and any(key in keys for key in files):
        odd = ", ".join(repr(key) for key in files if key not in keys)
        raise ValueError(f"{task}: data_files names {odd}: the data sets are {', '.join(keys)}")
    elif files is not None:
        local = {keys[0]: files}  # pyright: ignore[reportAssignmentType]
    return {s.key: DataSet(s, task, local.get(s.key), main=s is sources[0]) for s in sources}


def _local(paths: list[Path]) -> Any:
    """The rows of local files. `load_dataset` would do too, but it tells a counter of downloads on the network."""
    from datasets import Dataset

    read: Any = {"json": Dataset.from_json, "csv": Dataset.from_csv, "parquet": Dataset.from_parquet}[reader_of(paths)]
    return read(list(map(str, paths)))


def _download(url: str, folder: str) -> Path:
    """The file behind an address outside the hub, kept in the cache of `datasets`; it is fetched once."""
    from datasets import config  # `datasets` itself would need aiohttp for this
    from huggingface_hub import constants

    kept = Path(config.HF_DATASETS_CACHE) / "interp_transfer" / folder / url.rsplit("/", 1)[1]
    if not kept.is_file():
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError(f"HF_HUB_OFFLINE is set, and {url} was not fetched before")
        with urllib.request.urlopen(url, timeout=60) as reply:
            content = reply.read()
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as part:
            part.write_bytes(content)
    return kept


def _failures() -> tuple[type[Exception], ...]:
    """What is raised when data cannot be had: no network, gated, gone, broken files, a decompressor that is missing."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # The root of what the hub's HTTP library raises, whichever that is (requests, httpx, httpx2).
    http = next((base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), HfHubHTTPError)
    assert issubclass(http, Exception)
    return (OSError, ImportError, DatasetsError, ValueError, http)
