"""Outcomes that a study keeps in a folder, from which it resumes after it was stopped.

Completions and costs depend on a model, on prompts and on interventions alone, so they are kept under a hash of these. They are
computed and written in parts of consecutive settings; a part is read back whole or computed again whole, so that a resumed
study batches as one that was never stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from typeguard import TypeCheckError, check_type

from interp_transfer.activations.positions import Substring, describe
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.io import LOCK, hashed, locked_folder, read_tensors, write_json, write_tensors
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity

T = TypeVar("T")

ROWS = 1024
"""Number of completions, or of clean prompts that are read, after which they are written."""


@dataclass(frozen=True)
class Kept:
    """A folder of outcomes.

    Attributes:
        folder: the folder, made when something is written; None to divide the work in the same way and keep nothing.
    """

    folder: Path | None = None

    def each(
        self, what: str, keys: Sequence[str | None], make: Callable[[slice], Sequence[T]], kind: Any, at_once: int
    ) -> list[T]:
        """Return an outcome for each key: from the folder, or else made and written.

        Args:
            what: first part of the names of files.
            keys: what each outcome depends on, hashed; None for one that cannot be kept.
            make: makes the outcomes of a slice of the keys; they must be plain data.
            kind: type of an outcome, which is checked when a file is read; a damaged file is made again.
            at_once: number of outcomes in a file.
        """
        outcomes: list[T] = []
        for start in range(0, len(keys), at_once):
            part = slice(start, start + at_once)
            file = None
            if self.folder is not None and None not in keys[part]:
                file = self.folder / f"{what}-{hashed(list(keys[part]))}.json"
            outcomes += self._one(file, list[kind], lambda part=part: list(make(part)))
        return outcomes

    def mapper(self, about: Any, fit: Callable[[Path | None], Mapper]) -> Mapper:
        """Return the mapper that was fitted from what ``about`` describes, or else fit it.

        ``fit`` gets a folder for the state of a training, from which it resumes.

        Raises:
            ValueError: for a damaged mapper, with its folder.
        """
        if self.folder is None:
            return fit(None)
        folder = self.folder / f"mapper-{hashed(about)}"
        if (folder / "mapper.json").is_file():  # written last
            return Mapper.load(folder)
        state = folder.with_suffix(".training")
        mapper = fit(state)
        mapper.save(folder)
        shutil.rmtree(state, ignore_errors=True)
        return mapper

    def tensors(self, about: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors that ``about`` describes, or else make them; a damaged file is made again."""
        file = None if self.folder is None else self.folder / f"tensors-{hashed(about)}.safetensors"
        if file is not None and file.is_file():
            with suppress(ValueError):
                return read_tensors(file)[0]
        made = make()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(file, made)
        return made

    @contextmanager
    def alone(self, failures: Collection[Any] = ()) -> Iterator["Kept"]:
        """Keep other processes out of the folder, and remove it when the block ends.

        After an exception, and if there are failures by then, outcomes stay.

        Raises:
            ValueError: if another process is at work in it.
        """
        if self.folder is None:
            yield self
            return
        with locked_folder(self.folder):
            try:
                yield self
                if not failures:
                    self.remove()
            finally:
                if self.folder.is_dir() and all(path.name == LOCK for path in self.folder.iterdir()):
                    self.remove()

    def remove(self) -> None:
        """Remove the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _one(self, file: Path | None, kind: Any, make: Callable[[], Any]) -> Any:
        if file is not None and file.is_file():
            try:
                return check_type(json.loads(file.read_text(encoding="utf-8")), kind)
            except (ValueError, TypeCheckError):
                pass
        made = make()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, made)
        return made


def about_model(model: HookedModel) -> list[str]:
    """Return what the outputs of a model depend on, in this version of the package."""
    here = identity(model)
    return [here.fingerprint, str(here.processing), str(model.cfg.dtype), version("interp-transfer")]


def setting_key(setting: Sequence[Intervention]) -> list[Any] | None:
    """Return interventions as plain data, tensors as hashes; None for a transform or positions that are functions or masks."""
    plain: list[Any] = []
    for one in setting:
        if not isinstance(one.positions, str | int | Substring):
            return None
        try:
            what = _plain(one.transform)
        except TypeError:
            return None
        plain.append([one.site if isinstance(one.site, str) else list(one.site), describe(one.positions), what])
    return plain


def _plain(value: Any) -> Any:
    """A transform, or a part of one, as plain data; a TypeError for what has no such form, such as a function."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Tensor):
        return _digest(value)
    if isinstance(value, Mapper):
        return [value.kind, value.source.site, *([name, _digest(t)] for name, t in value.state_dict().items())]
    if isinstance(value, HookedModel):
        return about_model(value)
    if is_dataclass(value):
        return [type(value).__qualname__, *(_plain(getattr(value, f.name)) for f in fields(value))]
    raise TypeError(f"{type(value).__name__} is no plain data")


def _digest(tensor: Tensor) -> list[Any]:
    rows = tensor.detach().cpu().double().contiguous()
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(rows.numpy().tobytes()).hexdigest()]
