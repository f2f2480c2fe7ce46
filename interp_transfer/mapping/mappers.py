"""Mappers: fitted maps from one model's activations at a site to another's.

A mapper standardises what comes in, maps, and undoes the target's centring and scale on the way out. The core in between is
what kinds differ in (`cores`). Rows of massive length, where there were such, are sent to one row of the target (`fit`).
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typeguard import TypeCheckError, check_type

from interp_transfer.interventions.vector import SteeringVector, check_same, read_safetensors
from interp_transfer.mapping.cores import make_core
from interp_transfer.mapping.transfer import DEFAULT_MODE, find_mode, move
from interp_transfer.models.load import ModelIdentity

FORMAT = "interp_transfer.mapper/1"


@dataclass(frozen=True)
class Space:
    """One side of a mapper: a model, a site, and how many dimensions it has."""

    model: ModelIdentity
    site: str
    d: int


@dataclass(frozen=True)
class Card:
    """What is known about a fitted mapper; figures are of texts that it was not fitted on.

    Attributes:
        kind: name of the mapper.
        parameters: how many numbers were fitted.
        fvu: fraction of variance unexplained, mean taken for each dimension; 0 is perfect, 1 as good as the mean.
        cosine: mean cosine between mapped and true rows.
        norm_ratio: mean length of mapped rows over that of true rows.
        rows: rows that it was fitted on.
        held_out_rows: rows that it was judged on.
        seed: of the split, the initial weights and the order of batches.
        settings: of its kind, as used.
        curve: held-out loss after each epoch, for those that are trained by gradient.
        shuffled: whether it is the control that was fitted on exchanged partners.
        alignment: how tokens were paired.
        massive_rows: rows that were far longer than the others, and set apart (see ``fit``).
    """

    kind: str
    parameters: int
    fvu: float
    cosine: float
    norm_ratio: float
    rows: int
    held_out_rows: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    shuffled: bool = False
    alignment: str = "same_tokens"
    massive_rows: int = 0


class Mapper(nn.Module):
    """A fitted map from ``source`` to ``target``.

    Called with rows ``Float[Tensor, "row d_source"]`` it returns rows ``Float[Tensor, "row d_target"]``, in the units of the
    models. ``transfer`` moves steering vectors, ``save`` and ``load`` keep it.

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

    def transfer(self, vector: SteeringVector, mode: str = DEFAULT_MODE) -> SteeringVector:
        """The vector in the target's space.

        A map that is not linear cannot move a bare direction, so the mode says what is moved (``mapping.transfer`` explains
        the choice): ``difference`` the two sides of the contrast, and the difference is taken there (the default, and what
        keeps the effect); ``delta`` the steered and the unsteered evidence; ``jacobian`` the direction by the map's
        derivative at the evidence; ``raw`` the direction as if it were an activation. For an affine mapper the first three
        agree and ``raw`` adds the bias.

        Args:
            vector: of this mapper's source model and site.
            mode: one of ``difference``, ``delta``, ``jacobian``, ``raw``.

        Returns:
            A vector of the target model at the target site. Its length is what the map makes of it; compare it with a
            native vector's before reading strengths.

        Raises:
            ValueError: for a vector of another model or site, an unknown mode, or evidence that the mode needs and the
                vector lacks.
        """
        find_mode(mode)
        check_same(vector.model, self.source.model, "this vector and the mapper's source are")
        if vector.site != self.source.site:
            raise ValueError(
                f"this mapper was fitted at {self.source.site!r}, the vector lives at {vector.site!r}: extract it there, or "
                "fit a mapper for its site"
            )
        direction, evidence = move(self, vector, mode)
        note = f"moved from {vector.site} of {vector.model} by {self.kind}, mode {mode}"
        return SteeringVector(
            direction,
            self.target.site,
            self.target.model,
            evidence,
            vector.method,
            vector.positions,
            (*vector.history, note),
        )

    def extra_repr(self) -> str:
        """The spaces and the figures that matter."""
        return (
            f"{self.source.model.name} {self.source.site} ({self.source.d}) -> "
            f"{self.target.model.name} {self.target.site} ({self.target.d}), fvu {self.card.fvu:.3f}, "
            f"cosine {self.card.cosine:.3f}, norm ratio {self.card.norm_ratio:.3f}, {self.card.parameters} parameters"
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``mapper.safetensors`` and ``mapper.json`` into a folder, made if it is missing."""
        from safetensors.torch import save_file

        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        card = {
            "format": FORMAT,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "card": asdict(self.card),
        }
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, where / ".mapper.safetensors.part")
        (where / ".mapper.safetensors.part").chmod(0o644)
        (where / ".mapper.json.part").write_text(json.dumps(card, indent=1))
        (where / ".mapper.safetensors.part").replace(where / "mapper.safetensors")
        (where / ".mapper.json.part").replace(where / "mapper.json")
        return where

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
        weights, _ = read_safetensors(where / "mapper.safetensors")
        try:
            plain = check_type(json.loads(path.read_text()), dict[str, Any])
            if plain.get("format") != FORMAT:
                raise ValueError(f"{str(path)!r} is no mapper of this package (format {plain.get('format')!r})")
            source, target = (_space(plain[side]) for side in ("source", "target"))
            card = Card(**plain["card"])
            mapper = cls(make_core(card.kind, (source.d, target.d), card.settings), source, target, card)
            mapper.load_state_dict(weights)
        except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, TypeCheckError) as error:
            raise ValueError(f"the mapper in {str(where)!r} is damaged: {str(error).splitlines()[0]}") from error
        return mapper.eval().requires_grad_(False)


def _space(plain: dict[str, Any]) -> Space:
    return Space(ModelIdentity(**plain["model"]), check_type(plain["site"], str), check_type(plain["d"], int))
