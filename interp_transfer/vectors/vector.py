"""Steering vectors: a direction, its space, and the activations that it was computed from.

A vector keeps these activations, its evidence, because a map that is not linear cannot move a bare direction: it needs
activations to act on. The evidence of a contrast is its positive and its negative activations; a direction from elsewhere (an
SAE feature, a probe) has reference activations only. Arithmetic keeps the evidence as weighted contrasts, so that moving a sum
is moving its terms.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import Positions
from interp_transfer.escape import visible, without_surrogates
from interp_transfer.interventions.intervention import Intervention, ablate, add, clamp
from interp_transfer.interventions.transforms import Strength
from interp_transfer.io import named_errors, parse_json, read_tensors, typed, write_tensors
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import check_site, join_sites
from interp_transfer.models.tokens import token_text, tokenizer_of
from interp_transfer.names import quoted
from interp_transfer.plots.cards import card, histogram
from interp_transfer.plots.tokens import ColouredTokens
from interp_transfer.prompts.chats import PromptLike

FORMAT = "interp_transfer.vector/1"


@dataclass(frozen=True)
class Contrast:
    """Activations of both sides of a contrast, and its weight in the vector.

    Attributes:
        positive: activations of the wanted behaviour.
        negative: activations of its opposite.
        weight: factor of this contrast's difference in means.
    """

    positive: Float[Tensor, "n d_model"]
    negative: Float[Tensor, "m d_model"]
    weight: float = 1.0

    def difference(self) -> Float[Tensor, " d_model"]:
        """``weight * (mean(positive) - mean(negative))``."""
        return self.weight * (self.positive.mean(dim=0) - self.negative.mean(dim=0))


@dataclass(frozen=True)
class Reference:
    """Activations at which a map moves a direction that has no contrast."""

    activations: Float[Tensor, "n d_model"]


Evidence = tuple[Contrast, ...] | Reference


@dataclass(frozen=True, repr=False, eq=False)
class SteeringVector:
    """A direction in one model's activations at one site.

    Adding it once (strength 1.0) adds the contrast's own difference, in units of the activation.

    Attributes:
        direction: the vector; mean(positive) - mean(negative) for a difference in means.
        site: hook-point name.
        model: the model it belongs to.
        evidence: the contrasts that it was computed from, or reference activations.
        method: how it was computed.
        positions: the tokens whose activations were read.
        history: moves and rebindings as text, oldest first.
    """

    direction: Float[Tensor, " d_model"]
    site: str
    model: ModelIdentity
    evidence: Evidence = ()
    method: str = "given"
    positions: str = ""
    history: tuple[str, ...] = field(default=())

    @property
    def norm(self) -> float:
        """Euclidean length, in units of the activation."""
        return float(self.direction.float().norm())

    def add(self, strength: Strength = 1.0, positions: Positions = "all") -> Intervention:
        """The intervention that adds ``strength`` times this vector, see ``interventions.intervention.add``."""
        return add(self, strength, positions)

    def ablate(self, positions: Positions = "all", *, everywhere: bool = False) -> Intervention:
        """The intervention that removes the component along this vector, see ``interventions.intervention.ablate``."""
        return ablate(self, positions, everywhere=everywhere)

    def clamp(self, value: Strength, positions: Positions = "all") -> Intervention:
        """The intervention that sets the component along this vector, see ``interventions.intervention.clamp``."""
        return clamp(self, value, positions)

    def normalized(self, norm: float | int = 1.0) -> "SteeringVector":
        """The same direction with another length; the evidence is weighted accordingly."""
        if self.norm == 0:
            raise ValueError("a vector of norm zero has no direction: it cannot be given another length")
        return self * (norm / self.norm)

    def __mul__(self, factor: float | int) -> "SteeringVector":
        evidence = self.evidence
        if not isinstance(evidence, Reference):
            evidence = tuple(replace(contrast, weight=contrast.weight * factor) for contrast in evidence)
        return replace(self, direction=self.direction * factor, evidence=evidence)

    __rmul__ = __mul__

    def __truediv__(self, factor: float | int) -> "SteeringVector":
        return self * (1.0 / factor)

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        if not isinstance(other, SteeringVector):
            return NotImplemented
        check_same(self.model, other.model, "vectors")
        if self.site != other.site:
            raise ValueError(f"cannot add a vector at {other.site!r} to one at {self.site!r}: they belong to different spaces")
        return replace(
            self,
            direction=self.direction + other.direction,
            evidence=_join(self.evidence, other.evidence),
            method=self.method if self.method == other.method else f"{self.method}+{other.method}",
        )

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return self + (-other)

    def cosine(self, other: "SteeringVector") -> float:
        """Cosine of the angle with another vector of the same space."""
        check_same(self.model, other.model, "vectors")
        return float(torch.nn.functional.cosine_similarity(self.direction.float(), other.direction.float(), dim=0))

    def for_model(self, model: HookedModel) -> "SteeringVector":
        """The same vector, bound to another model on purpose, such as a fine-tune of its own.

        Raises:
            ValueError: if the model does not have the site or has another width.
        """
        check_site(model, self.site)
        if int(model.cfg.d_model) != self.direction.shape[0]:
            raise ValueError(f"a vector of {self.direction.shape[0]} numbers does not fit d_model {model.cfg.d_model}")
        new = identity(model)
        return replace(self, model=new, history=(*self.history, f"rebound from {self.model} to {new}"))

    def plot(self, model: HookedModel, texts: Sequence[PromptLike]) -> ColouredTokens:
        """Colour the tokens of texts or chats by the activation's component along the vector, in units of the activation.

        Raises:
            ValueError: for another model than the vector's.
        """
        check_same(identity(model), self.model, "the model and the vector are")
        acts = capture(model, texts, self.site, progress=False)
        along = acts[self.site].float() @ (self.direction.float() / self.norm)
        tokenizer = tokenizer_of(model)
        rows = [(acts.text_index == k).nonzero()[:, 0] for k in range(len(texts))]
        tokens = [[token_text(tokenizer, int(acts.token[i])) for i in row] for row in rows]
        return ColouredTokens(tokens, [along[row].tolist() for row in rows], f"along the vector at {self.site}")

    def __repr__(self) -> str:
        if isinstance(self.evidence, Reference):
            evidence = f"{len(self.evidence.activations)} reference activations"
        else:
            evidence = " + ".join(f"{c.weight:g} x ({len(c.positive)} | {len(c.negative)})" for c in self.evidence) or "none"
        return visible(
            f"SteeringVector({self.method} at {self.site} of {self.model}, d {self.direction.shape[0]}, "
            f"norm {self.norm:.3g}, evidence {evidence})"
        )

    def _repr_html_(self) -> str:
        if isinstance(self.evidence, Reference) or not self.evidence or not self.norm:
            return card(repr(self), histogram({"components": self.direction.float().tolist()}))
        unit, first = self.direction.float() / self.norm, self.evidence[0]
        along = {side: (getattr(first, side).float() @ unit).tolist() for side in ("positive", "negative")}
        return card(f"{self!r}\nEvidence along the vector, in units of the activation:", histogram(along))

    def save(self, path: str | Path, **extra: str | float) -> Path:
        """Write a safetensors file: tensor ``direction``, tensors of the evidence, everything else in the metadata.

        Args:
            path: the file, written atomically.
            extra: more metadata, such as ``strength``.
        """
        tensors = {"direction": self.direction}
        weights: list[float] = []
        if isinstance(self.evidence, Reference):
            tensors["evidence.reference"] = self.evidence.activations
        else:
            for i, contrast in enumerate(self.evidence):
                tensors[f"evidence.{i}.positive"] = contrast.positive
                tensors[f"evidence.{i}.negative"] = contrast.negative
                weights.append(contrast.weight)
        metadata = {
            "format": FORMAT,
            "site": self.site,
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "processing": self.model.processing,
            "method": self.method,
            "extracted_at": self.positions,
            "weights": json.dumps(weights),
            "history": json.dumps([without_surrogates(line) for line in self.history]),
            **{key: str(value) for key, value in extra.items()},
        }
        write_tensors(path, tensors, metadata)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "SteeringVector":
        """Read a file of ``save``.

        Raises:
            ValueError: for a damaged or foreign file, with its name.
        """
        tensors, meta = read_tensors(path)
        if meta.get("format") != FORMAT or "direction" not in tensors:
            raise ValueError(f"{str(path)!r} is no steering vector of this package (format {quoted(meta.get('format'))})")
        with named_errors(f"{str(path)!r} is damaged"):
            weights = typed(parse_json(meta["weights"]), list[float])
            history = typed(parse_json(meta["history"]), list[str])
            wide = (len(tensors["direction"]),)
            if any(t.shape[("evidence" in name) :] != wide or not t.is_floating_point() for name, t in tensors.items()):
                raise ValueError("its tensors are not a direction and rows of the same width")
            if "evidence.reference" in tensors:
                evidence: Evidence = Reference(tensors["evidence.reference"])
            else:
                sides = [(tensors[f"evidence.{i}.positive"], tensors[f"evidence.{i}.negative"]) for i in range(len(weights))]
                evidence = tuple(Contrast(p, n, w) for (p, n), w in zip(sides, weights, strict=True))
            known = ModelIdentity(meta["model"], meta["fingerprint"], meta["processing"])
            return cls(
                tensors["direction"], meta["site"], known, evidence, meta["method"], meta["extracted_at"], tuple(history)
            )


def side_by_side(vectors: Sequence[SteeringVector]) -> SteeringVector:
    """Concatenate vectors of several sites of one model, for a mapper of these sites together.

    No model has a site of the result, so it can be moved but not applied.

    Args:
        vectors: extracted from the same prompts in the same order, so that the n-th rows of their evidence belong together.

    Raises:
        ValueError: for two models, one site twice, or evidence of different size, kind or weight.
    """
    first = vectors[0]
    for other in vectors[1:]:
        check_same(first.model, other.model, "vectors")
        if _sizes(other.evidence) != _sizes(first.evidence):
            raise ValueError(
                f"the evidence of the vectors at {first.site!r} and {other.site!r} is not of the same prompts: extract both "
                "from the same contrast"
            )
    rows = [torch.cat(column, dim=1) for column in zip(*(_activations(v.evidence) for v in vectors), strict=True)]
    if isinstance(first.evidence, Reference):
        evidence: Evidence = Reference(rows[0])
    else:
        sides = zip(rows[::2], rows[1::2], first.evidence, strict=True)
        evidence = tuple(Contrast(positive, negative, old.weight) for positive, negative, old in sides)
    direction = torch.cat([v.direction for v in vectors])
    return replace(first, direction=direction, site=join_sites(v.site for v in vectors), evidence=evidence)


def _sizes(evidence: Evidence) -> list[tuple[int, int, float]]:
    if isinstance(evidence, Reference):
        return [(len(evidence.activations), 0, 0.0)]
    return [(len(c.positive), len(c.negative), c.weight) for c in evidence]


def check_same(have: ModelIdentity, want: ModelIdentity, what: str) -> None:
    """Refuse to mix models.

    Raises:
        ValueError: with both names, and how to rebind on purpose.
    """
    if have.fingerprint != want.fingerprint:
        raise ValueError(
            f"{what} of two models: {have} and {want}; move one through a mapper, or rebind it on purpose with for_model(model)"
        )


def _join(one: Evidence, other: Evidence) -> Evidence:
    if isinstance(one, Reference) or isinstance(other, Reference):
        return Reference(torch.cat([*_activations(one), *_activations(other)]))
    return (*one, *other)


def evidence_rows(evidence: Evidence) -> Float[Tensor, "n d_model"]:
    """Return all activations of a vector's evidence; an empty tensor for a bare direction."""
    rows = _activations(evidence)
    return torch.cat(rows) if rows else torch.empty(0, 0)


def _activations(evidence: Evidence) -> list[Tensor]:
    if isinstance(evidence, Reference):
        return [evidence.activations]
    return [side for contrast in evidence for side in (contrast.positive, contrast.negative)]
