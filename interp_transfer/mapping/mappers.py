"""Mappers: fitted maps from one model's activations at a site to another model's.

A mapper standardises the source's rows, maps them by its core, and restores the target's scale and mean. Kinds differ in the
core (`networks`). Rows of massive length are mapped to one fixed row of the target (`fit`).

A mapper is saved as ``mapper.safetensors`` and ``mapper.json``, in a folder or in a repository of the Hugging Face Hub, with a
model card (`card`).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from jaxtyping import Bool, Float
from plotly.graph_objects import Figure
from torch import Tensor, nn

from interp_transfer.escape import visible
from interp_transfer.io import (
    check_digest,
    checked,
    named_errors,
    parse_json,
    read_tensors,
    tensors_digest,
    typed,
    with_digest,
    write_json,
    write_tensors,
)
from interp_transfer.mapping.card import LIBRARY, PAPER, Card, is_our_card, model_card
from interp_transfer.mapping.hub import fetch, hub_errors, local_folder
from interp_transfer.mapping.move import DEFAULT_MODE, DEFAULT_NORM, MODES, NORMS, applicable_mode, move
from interp_transfer.mapping.networks import make_core
from interp_transfer.models.identity import ModelIdentity, Space
from interp_transfer.names import find, misplaced
from interp_transfer.plots.cards import card, shares
from interp_transfer.plots.transfer import transfer_picture
from interp_transfer.vectors.planes import transfer_planes
from interp_transfer.vectors.vector import SteeringVector, check_same

FORMAT = "interp_transfer.mapper/1"


class Mapper(
    nn.Module,
    ModelHubMixin,
    library_name=LIBRARY,
    paper_url=PAPER,
    tags=["activation-steering", "mechanistic-interpretability"],
):
    """A fitted map from ``source`` to ``target``.

    A call maps rows ``Float[Tensor, "row d_source"]`` to rows ``Float[Tensor, "row d_target"]``, both in the units of their
    models' activations.

    Attributes:
        core: network that maps standardised rows.
        source: the space of the rows that it takes.
        target: the space of the rows that it returns.
        card: how it was fitted, and its held-out figures.
    """

    shift_in: Tensor
    scale_in: Tensor
    shift_out: Tensor
    scale_out: Tensor
    massive_norm: Tensor
    massive_out: Tensor

    def __init__(self, core: nn.Module, source: Space, target: Space, card: Card) -> None:
        super().__init__()
        self._hub_mixin_config = None  # no config.json: mapper.json has its content
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
        if not isinstance(rows, Tensor):
            raise misplaced(rows, "activations (row, d_source)", "a vector is moved by mapper.transfer(vector)")
        if rows.ndim != 2 or rows.shape[1] != self.source.d:
            raise ValueError(f"rows of shape {tuple(rows.shape)}: this mapper takes (row, {self.source.d})")
        rows = rows.to(self.shift_in.dtype)
        mapped = self.core((rows - self.shift_in) / self.scale_in) * self.scale_out + self.shift_out
        if self.massive_norm.isinf():
            return mapped
        return torch.where(self.is_massive(rows)[:, None], self.massive_out, mapped)

    def is_massive(self, rows: Float[Tensor, "row d_source"]) -> Bool[Tensor, " row"]:
        """Which rows are so long that they are all sent to one row of the target."""
        return rows.norm(dim=1) > self.massive_norm

    def transfer(self, vector: SteeringVector, mode: str = DEFAULT_MODE, norm: str = DEFAULT_NORM) -> SteeringVector:
        """Return the vector in the target's space.

        A nonlinear map has no single image of a direction, so ``mode`` selects what is mapped (see ``mapping.move``). For an
        affine mapper, ``difference``, ``delta`` and ``jacobian`` agree, and ``raw`` adds the bias. A vector that is not the
        difference in means of its evidence, such as a probe's direction, is moved by ``delta`` instead of ``difference``; its
        history records that.

        Args:
            vector: vector of this mapper's source model and site.
            mode: ``difference`` maps both sides of the contrast and subtracts their means, which preserves the effect best.
                ``delta`` maps the evidence with and without the vector added. ``jacobian`` multiplies the vector by the map's
                derivative at the evidence. ``raw`` maps the direction as if it were an activation.
            norm: ``mapped`` keeps the length that results. ``spread`` keeps the ratio of the vector's length to the spread of
                its evidence. Neither uses the target's native vector.

        Returns:
            A vector of the target model at the target site. Maps do not preserve lengths: compare its length with a native
            vector's before you interpret strengths.

        Raises:
            ValueError: for a vector of another model or site, an unknown mode or norm, or a vector without the evidence that
                the mode or the norm needs.
        """
        if not isinstance(vector, SteeringVector):
            raise misplaced(vector, "a steering vector", "take one of it.extract(...); mapper(rows) maps activations")
        find(mode, MODES, "mode")
        give_norm = find(norm, NORMS, "norm")
        check_same(vector.model, self.source.model, "this vector and the mapper's source are")
        if vector.site != self.source.site:
            raise ValueError(
                f"this mapper was fitted at {self.source.site!r}, and the vector is of {vector.site!r}: extract it there, or "
                "fit a mapper for its site"
            )
        used = applicable_mode(vector, mode)
        direction, evidence = move(self, vector, used)
        why = "" if used == mode else f" (not {mode}: the vector is not its evidence's difference in means)"
        note = f"moved from {vector.site} of {vector.model} by {self.kind}, mode {used}{why}, norm {norm}"
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

    def plot(
        self,
        vector: SteeringVector,
        native: SteeringVector | None = None,
        texts: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> Figure:
        """Draw the move of a vector: both sides of its contrast before and after the map, in a plane of each space.

        Args:
            vector: vector of this mapper's source model and site, from ``extract``.
            native: the target's own vector of the same contrast, to be shown with it.
            texts: prompts of the positive and of the negative side, shown on hover.

        Raises:
            ValueError: for a vector that ``transfer`` refuses, or whose evidence is no single contrast.
        """
        return transfer_picture(transfer_planes(vector, self.transfer(vector), native, texts))

    def extra_repr(self) -> str:
        """Return the spaces and the main figures, for ``repr``."""
        return visible(
            f"{self.source.model.name} {self.source.site} ({self.source.d}) -> "
            f"{self.target.model.name} {self.target.site} ({self.target.d}), fvu {self.card.fvu:.3f}, "
            f"cosine {self.card.cosine:.3f}, norm ratio {self.card.norm_ratio:.3f}, {self.card.parameters} parameters"
        )

    def _repr_html_(self) -> str:
        return card(repr(self), shares({"variance explained": (1 - self.card.fvu, 1.0)}))

    def save(self, folder: str | Path) -> Path:
        """Write ``mapper.safetensors``, ``mapper.json`` and the model card ``README.md``; return the folder.

        A README.md that is not a mapper's card is not overwritten.

        Args:
            folder: created if it does not exist.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(where)
        if not (where / "README.md").exists():
            self.generate_model_card().save(where / "README.md")
        return where

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the two files, and remove an older mapper's card; the caller writes the new one."""
        card = {
            "format": FORMAT,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "card": asdict(self.card),
        }
        write_tensors(save_directory / "mapper.safetensors", self.state_dict())
        write_json(save_directory / "mapper.json", with_digest(card, tensors_digest(self.state_dict())))
        readme = save_directory / "README.md"
        if readme.is_file() and is_our_card(readme.read_text(encoding="utf-8", errors="replace")):
            readme.unlink()

    def generate_model_card(self, *_: Any, repo_id: str = "path/to/this/folder", **__: Any) -> ModelCard:
        """Return the model card; its ``str()`` is the content of README.md.

        Args:
            repo_id: repository or folder in the card's example.
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
        """Upload the files of ``save`` to a repository of the Hugging Face Hub, which is created if it does not exist.

        The files contain the names of both models as they were passed to ``load_model``, local paths included.

        Args:
            repo_id: "user/name".
            private: whether a new repository is private; the hub's default if None.
            token: access token with write permission; the token of `hf auth login` if None.
            branch: branch to push to; the main branch if None.
            commit_message: message of the commit.
            options: further options of ``huggingface_hub.ModelHubMixin.push_to_hub``.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: for a repository that cannot be reached or written to.
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
        """Load a mapper from a folder, without the network, or from a repository of the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: a folder, or "user/name"; an existing folder of that name takes precedence.
            revision: branch, tag or commit of a repository; a folder has none.
            token: access token for a gated or private repository; the token of `hf auth login` if None.
            cache_dir: folder for downloads; the hub's cache if None.
            force_download: download files that are in the cache already.
            local_files_only: use the cache alone, without the network.

        Raises:
            ValueError: for a repository that does not exist, is gated or cannot be reached, or that holds no mapper.
        """
        # The mixin's own method requires a config.json, which a mapper does not have.
        name = str(pretrained_model_name_or_path)
        folder = local_folder(name)
        if folder is None:
            options: dict[str, Any] = {"force_download": force_download, "local_files_only": local_files_only}
            folder = fetch(name, revision=revision, token=token, cache_dir=cache_dir, **options)
        elif revision is not None:
            raise ValueError(f"revision={revision!r}: {name!r} is a folder here, which has no revisions; leave it out")
        return cls.load(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Mapper":
        """Load a mapper that ``save`` wrote.

        Raises:
            ValueError: for a missing or damaged file.
        """
        where = Path(folder)
        path = where / "mapper.json"
        if not path.is_file():
            raise ValueError(f"there is no mapper in {str(where)!r}: mapper.json is missing")
        weights, _ = read_tensors(where / "mapper.safetensors")
        with named_errors(f"the mapper in {str(where)!r} is damaged"):
            plain = typed(parse_json(path.read_text(encoding="utf-8")), dict[str, Any])
            if plain.get("format") != FORMAT:
                raise ValueError(f"{path.name} is of no mapper of this package (format {plain.get('format')!r})")
            source, target = (_space(plain[side]) for side in ("source", "target"))
            card = checked(Card, plain["card"])
            with torch.device("meta"):  # widths in the file allocate nothing
                mapper = cls(make_core(card.kind, (source.d, target.d), card.settings), source, target, card)
            aligned = {name: w.to(torch.float32, copy=True) for name, w in weights.items()}  # tensors of a file need not be
            mapper.load_state_dict(aligned, assign=True)
            check_digest(plain, tensors_digest(weights))
        return mapper.eval().requires_grad_(False)


def _space(plain: dict[str, Any]) -> Space:
    return checked(Space, {**plain, "model": checked(ModelIdentity, plain["model"])})
