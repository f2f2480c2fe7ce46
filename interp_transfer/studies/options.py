"""The options of `run`: one dataclass.

The flags of `interp-transfer run`, ``options`` and ``asked`` in result.json, and the command in the report derive from it. It
is read each time the command line starts, so torch is imported only when options are checked.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from interp_transfer.names import did_you_mean, find

DEFAULT_N = 200
VALIDATION_PROMPTS = 40
QUICK = {
    "n": 16,
    "n_validation": 16,
    "directions": 8,
    "seeds": 1,
    "equal_cost": True,
    "strength_one": False,
    "variants": False,
    "side_effects": False,
}
"""What ``quick`` changes."""


@dataclass(frozen=True)
class TaskOptions:
    """How a study takes a task and loads models.

    Attributes:
        edition: plugin that registers the task; default: ready, where that has the name and no model was made for the task of
            a plugin, or else the first one that knows the name.
        data: local copy of the data of a task of the paper: a file or folder, or KEY=PATH of several, joined by commas.
        chat: render prompts by each model's own chat template: the texts of a file of pairs, or those of a task of the paper.
        max_new_tokens: length of completions; default: the task's own.
        dtype: dtype of models that are loaded by name: auto (the checkpoint's), float32, bfloat16 or float16.
        device: device of models that are loaded by name, such as cpu or cuda:1; default: a GPU if there is one.
        chat_template: template of chats for a model that has none: alpaca, or a Jinja template; default: chats are refused.
    """

    edition: str | None = None
    data: str | None = None
    chat: bool = False
    max_new_tokens: int | None = None
    dtype: str = "auto"
    device: str | None = None
    chat_template: str | None = None


DEFAULTS = TaskOptions()


@dataclass(frozen=True)
class RunOptions(TaskOptions):
    """How `run` extracts, moves and judges a vector.

    Attributes:
        mapper: kind of mapper: autoencoder, affine, procrustes, low_rank, low_rank_update, residual, embeddings, mean_shift or
            untrained.
        settings: setting of the mapper, such as width=2048; see ``mapping.kinds``.
        mode: how the vector is moved: difference, delta, jacobian or raw.
        norm: length of the moved vector before strengths are chosen: mapped or spread.
        alignment: how tokens of different tokenizers are paired: last_so_far, same_boundary, mean_in_span, word_ends,
            index_left or index_right.
        texts: what mappers are fitted on: a JSONL or text file, the name of a data set, task (its own training texts) or
            generated (its training prompts, answered by the target); default: generated, if the task has prompts alone and the
            target was not made for tasks of a plugin.
        source_site: hook point at which the vector is extracted, or the number of a block for its input; default: the one on
            the source model's card, or else a search. "auto" always searches.
        target_site: hook point at which it is added, in the same forms.
        method: how the vector is extracted: difference_in_means, pca, probe, or robust, for models in which a few dimensions
            are massive.
        read: tokens that the vector is extracted from: last, all, content, post_instruction or an index; default: the task's
            own.
        instruction: system prompt that asks for the behaviour: the target under it, without a vector, is one more condition;
            default: the task's own.
        direction: direction of a task that has several, such as ablate or induce.
        n: number of held-out prompts; by default 200, or all there are.
        n_validation: number of validation prompts, and of clean ones, on which strengths are chosen; never more than n.
        seed: seed of everything that is drawn.
        budget: clean KL that a strength may cost, in nats per token; default: the task's own.
        equal_cost: give every vector the largest strength within the budget, in place of the fraction of it that leaves most
            validation answers intact.
        directions: number of isotropic random directions; half as many are drawn in the span of the moved evidence.
        seeds: number of seeds with which mappers, and mappers for controls, are fitted; the first one's mapper is kept.
        strength_one: also judge vectors at strength 1, as the paper does.
        variants: also judge the other modes and mappers.
        side_effects: also measure what the vectors cost elsewhere, and what the mapper recovers of the loss of mean ablation.
        quick: less of everything, for a first look: n 16, 16 validation prompts, 8 directions, 1 seed, equal costs, nothing at
            strength 1, no variants, no side effects; an option that is given stays.
    """

    mapper: str = "autoencoder"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    mode: str = "difference"
    norm: str = "mapped"
    alignment: str = "last_so_far"
    texts: str | None = None
    source_site: str | None = None
    target_site: str | None = None
    method: str = "difference_in_means"
    read: str | None = None
    instruction: str | None = None
    direction: str | None = None
    n: int = DEFAULT_N
    n_validation: int = VALIDATION_PROMPTS
    seed: int = 0
    budget: float | None = None
    equal_cost: bool = False
    directions: int = 20
    seeds: int = 3
    strength_one: bool = True
    variants: bool = True
    side_effects: bool = True
    quick: bool = False

    def __post_init__(self) -> None:
        from interp_transfer.activations.align import find_strategy
        from interp_transfer.mapping.fit import check_kind
        from interp_transfer.mapping.move import MODES, NORMS
        from interp_transfer.vectors.extract import METHODS

        check_kind(self.mapper, self.settings)
        find(self.method, METHODS, "method")
        find(self.mode, MODES, "mode")
        find(self.norm, NORMS, "norm")
        find_strategy(self.alignment)
        counts = {"directions": self.directions, "seeds": self.seeds, "n_validation": self.n_validation}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count}: give at least one")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget={self.budget}: give a number of nats per token above zero")

    @property
    def fractions(self) -> tuple[float, ...]:
        """Of the largest strength within the budget: those that are judged on validation prompts."""
        from interp_transfer.search.strengths import EQUAL_COST, FRACTIONS

        return EQUAL_COST if self.equal_cost else FRACTIONS

    @property
    def mapper_seeds(self) -> range:
        """The seeds with which mappers are fitted."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def span_directions(self) -> int:
        """Number of random directions in the span of the moved evidence."""
        return -(-self.directions // 2)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "RunOptions":
        """Options by name; a site that is the number of a block becomes text.

        Raises:
            ValueError: for an unknown name or an impossible value, with the closest one.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"unknown option {name!r}: {did_you_mean(name, known)}choose from {', '.join(known)}")
        sites = {name: str(options[name]) for name in ("source_site", "target_site") if isinstance(options.get(name), int)}
        plain = {**options, **sites}
        if plain.get("quick"):
            plain = {**QUICK, **plain}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds them."""
        return {**asdict(self), "settings": dict(self.settings)}
