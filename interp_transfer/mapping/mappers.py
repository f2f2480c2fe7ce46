"""Mappers: fitted maps from one model's activations at a site to another's.

A mapper standardises what comes in, maps, and undoes the target's centring and scale on the way out. The core in between is
what kinds differ in (`cores`). Rows of massive length, where there were such, are sent to one row of the target (`fit`).

It is kept in one format, ``mapper.safetensors`` and ``mapper.json``, on disk and on the Hugging Face Hub; a model card for
readers (`card`) lies beside them.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from typeguard import TypeCheckError, check_type

from interp_transfer.io import read_tensors, write_json, write_tensors
from interp_transfer.mapping.card import LIBRARY, PAPER, Card, Space, is_our_card, model_card
from interp_transfer.mapping.hub import fetch, hub_errors, local_folder
from interp_transfer.mapping.move import DEFAULT_MODE, DEFAULT_NORM, find_mode, find_norm, move
from interp_transfer.mapping.networks import make_core
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.vectors.vector import SteeringVector, check_same

FORMAT = "interp_transfer.mapper/1"
T = TypeVar("T")


class Mapper(
    nn.Module,
    ModelHubMixin,
    library_name=LIBRARY,
    paper_url=PAPER,
    tags=["activation-steering", "mechanistic-interpretability"],
):
    """A fitted map from ``source`` to ``target``.

    Called with rows ``Float[Tensor, "row d_source"]`` it returns rows ``Float[Tensor, "row d_target"]``, in the units of the
    models. ``transfer`` moves steering vectors, ``save`` and ``load`` keep it, ``push_to_hub`` and
    ``from_pretrained`` share it.

    Attributes:
        core: what maps standardised rows.
        source: the space it maps from.
        target: the space it maps to.
        card: what is known about it.
    """

    shift_in: Tensor
    scale_in: Tensor
    shift_out: Tensor
    scale_out: Tensor
    massive_norm: Tensor
    massive_out: Tensor

    def __init__(self, core: nn.Module, source: Space, target: Space, card: Card) -> None:
        super().__init__()
        self._hub_mixin_config = None  # the mixin's config.json would say again what mapper.json says
        self.core, self.source, self.target, self.card = core, source, target, card
        self.register_buffer("shift_in", torch.zeros(source.d))
        self.register_buffer("scale_in", torch.ones(source.d))
        self.register_buffer("shift_out", torch.zeros(target.d))
        self.register_buffer("scale_out", torch.ones(()))
        self.register_buffer("massive_norm", torch.tensor(math.inf))
        self.register_buffer("massive_out", torch.zeros(target.d))

    @property
    def kind(self) -> str:
        """Name of the kind."""
        return self.card.kind

    def forward(self, rows: Float[Tensor, "row d_source"]) -> Float[Tensor, "row d_target"]:
        """Map rows.

        Raises:
            ValueError: for rows of another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self.source.d:
            raise ValueError(f"rows of shape {tuple(rows.shape)}: this mapper takes (row, {self.source.d})")
        rows = rows.to(self.shift_in.dtype)
        mapped = self.core((rows - self.shift_in) / self.scale_in) * self.scale_out + self.shift_out
        if self.massive_norm.isinf():
            return mapped
        return torch.where((rows.norm(dim=1) > self.massive_norm)[:, None], self.massive_out, mapped)

    def transfer(self, vector: SteeringVector, mode: str = DEFAULT_MODE, norm: str = DEFAULT_NORM) -> SteeringVector:
        """The vector in the target's space.

        A map that is not linear cannot move a bare direction, so the mode says what is moved (``mapping.move`` explains
        the choice): ``difference`` the two sides of the contrast, and the difference is taken there (the default, and what
        keeps the effect); ``delta`` the steered and the unsteered evidence; ``jacobian`` the direction by the map's
        derivative at the evidence; ``raw`` the direction as if it were an activation. For an affine mapper the first three
        agree and ``raw`` adds the bias.

        Args:
            vector: of this mapper's source model and site.
            mode: one of ``difference``, ``delta``, ``jacobian``, ``raw``.
            norm: ``mapped``, the length that the map makes of it, or ``spread``, the length that is to the spread of the
                mapped evidence what the vector's was to the spread of its own. Neither looks at the target's native vector.

        Returns:
            A vector of the target model at the target site. A map does not keep lengths: compare it with a native vector's
            before reading strengths.

        Raises:
            ValueError: for a vector of another model or site, an unknown mode or norm, or evidence that these need and the
                vector lacks.
        """
        find_mode(mode)
        give_norm = find_norm(norm)
        check_same(vector.model, self.source.model, "this vector and the mapper's source are")
        if vector.site != self.source.site:
            raise ValueError(
                f"this mapper was fitted at {self.source.site!r}, the vector lives at {vector.site!r}: extract it there, or "
                "fit a mapper for its site"
            )
        direction, evidence = move(self, vector, mode)
        note = f"moved from {vector.site} of {vector.model} by {self.kind}, mode {mode}, norm {norm}"
        moved = SteeringVector(
            direction,
            self.target.site,
            self.target.model,
            evidence,
            vector.method,
            vector.positions,
            (*vector.history, note),
        )
        return give_norm(moved, vector)

    def extra_repr(self) -> str:
        """The spaces and the figures that matter."""
        return (
            f"{self.source.model.name} {self.source.site} ({self.source.d}) -> "
            f"{self.target.model.name} {self.target.site} ({self.target.d}), fvu {self.card.fvu:.3f}, "
            f"cosine {self.card.cosine:.3f}, norm ratio {self.card.norm_ratio:.3f}, {self.card.parameters} parameters"
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``mapper.safetensors``, ``mapper.json`` and the model card ``README.md`` into a folder, made if it is missing.

        A README.md that is not a mapper's card is left as it is.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(where)
        if not (where / "README.md").exists():
            self.generate_model_card().save(where / "README.md")
        return where

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the two files, and remove the card of a mapper that was here before; who calls writes the new one."""
        card = {
            "format": FORMAT,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "card": asdict(self.card),
        }
        write_tensors(save_directory / "mapper.safetensors", self.state_dict())
        write_json(save_directory / "mapper.json", card)
        readme = save_directory / "README.md"
        if readme.is_file() and is_our_card(readme.read_text(encoding="utf-8", errors="replace")):
            readme.unlink()

    def generate_model_card(self, *_: Any, repo_id: str = "path/to/this/folder", **__: Any) -> ModelCard:
        """The model card; ``str()`` of it is the README.md.

        Args:
            repo_id: what the card tells to load.
        """
        return model_card(self.source, self.target, self.card, self._hub_mixin_info.model_card_data, repo_id)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        commit_message: str = "Push a mapper made with interp_transfer",
        **options: Any,
    ) -> str:
        """Upload what ``save`` writes to a repository of the Hugging Face Hub, made if it is missing.

        The names of both models go with it as they were given to ``load_model``, local paths too.

        Args:
            repo_id: "user/name".
            private: whether a repository that is made can be seen by its owner alone; by default as the hub has it.
            token: of an account that may write there; by default the one that `hf auth login` keeps.
            branch: to push to; the main one if None.
            commit_message: of the upload.
            options: as ``huggingface_hub.ModelHubMixin.push_to_hub`` takes them.

        Returns:
            The address of the commit.

        Raises:
            ValueError: for a repository that cannot be written to or reached, named, with what to do.
        """
        card = {"repo_id": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        with hub_errors(f"cannot push to {repo_id!r}", repo_id, branch):
            return super().push_to_hub(
                repo_id,
                private=private,
                token=token,
                branch=branch,
                commit_message=commit_message,
                model_card_kwargs=card,
                **options,
            )

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride] (an unknown option is an error here)
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "Mapper":
        """Load a mapper from a repository of the Hugging Face Hub, or from a folder, which never touches the network.

        Args:
            pretrained_model_name_or_path: "user/name", or a folder; a folder of that name comes first.
            revision: branch, tag or commit of a repository; a folder has none.
            token: for a gated or private repository; by default the one that `hf auth login` keeps.
            cache_dir: where downloads are kept; the hub's cache if None.
            force_download: download what is in the cache already.
            local_files_only: take the cache's copy, without the network.

        Raises:
            ValueError: for a repository that is missing, gated or out of reach, or holds no mapper, named, with what to do.
        """
        # Not the mixin's, which asks for a config.json first: a mapper has none.
        name = str(pretrained_model_name_or_path)
        folder = local_folder(name)
        if folder is None:
            options: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
            folder = fetch(name, force_download=force_download, local_files_only=local_files_only, **options)
        elif revision is not None:
            raise ValueError(f"revision={revision!r}: {name!r} is a folder here, which has no revisions; leave it out")
        return cls.load(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Mapper":
        """Read what ``save`` wrote.

        Raises:
            ValueError: for a missing or damaged file, named.
        """
        where = Path(folder)
        path = where / "mapper.json"
        if not path.is_file():
            raise ValueError(f"there is no mapper in {str(where)!r}: mapper.json is missing")
        weights, _ = read_tensors(where / "mapper.safetensors")
        try:
            plain = check_type(json.loads(path.read_text()), dict[str, Any])
            if plain.get("format") != FORMAT:
                raise ValueError(f"{str(path)!r} is no mapper of this package (format {plain.get('format')!r})")
            source, target = (_space(plain[side]) for side in ("source", "target"))
            card = _made(Card, plain["card"])
            mapper = cls(make_core(card.kind, (source.d, target.d), card.settings), source, target, card)
            mapper.load_state_dict(weights)
        except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, TypeCheckError) as error:
            raise ValueError(f"the mapper in {str(where)!r} is damaged: {str(error).splitlines()[0]}") from error
        return mapper.eval().requires_grad_(False)


def _space(plain: dict[str, Any]) -> Space:
    return _made(Space, {**plain, "model": _made(ModelIdentity, plain["model"])})


def _made(kind: type[T], plain: dict[str, Any]) -> T:
    """A dataclass from what a file says, its fields checked: the file may come from anywhere."""
    made = kind(**plain)
    for name, hint in get_type_hints(kind).items():
        check_type(getattr(made, name), hint)
    return made
