"""The safety switch (the paper's appendix F): a fine-tuned model made to behave as its base, or the base as its fine-tune.

A mapper from the fine-tuned model's activations at one layer to the base's replaces them there. It needs no second model when
it is used, can be taken off again, and is small beside the model. Whether that is worth anything shows beside the other ways:
the second model's own activations put in at the same layer (which needs that model), some of its weights, a LoRA trained on
the same prompts, a steering vector; and beside what should do nothing: a map fitted on partners at random, random changes of
the same length, the site's mean.

Every way has its gain (the behaviour is gone, or there), and its loss: on prompts that the behaviour is not about, and on
skills that no map was fitted on.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS
from interp_transfer.evaluation.evaluator import RANDOM_DRAWS, Condition, Evaluator, condition, cost, evaluator, mean_ablation
from interp_transfer.evaluation.side_effects import skills_of
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.weights import weights_from
from interp_transfer.mapping.collect import collect
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel, parameter_count
from interp_transfer.models.identity import ModelIdentity, identity
from interp_transfer.models.sites import expand_sites, layer_of
from interp_transfer.models.tokens import tokenizer_fingerprint
from interp_transfer.plots.style import percent
from interp_transfer.search.strengths import choose, sweep_strengths
from interp_transfer.stats import Estimate, share_to_dict
from interp_transfer.vectors.extract import extract

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

SHARE = 0.005
"""Of the model's parameters that the low-rank map may have."""

Able = Callable[..., list[Mapping[str, Estimate]]]
"""(model, *interventions, n=) -> share of answers that are as they should be, by skill."""

RANKS = (2, 8)
"""That are tried beside the largest that the share allows."""

MAPPED, AUTOENCODER, DIRECT = "mapped", "paper's autoencoder", "direct patching"
ACTIVATIONS = (DIRECT, MAPPED, AUTOENCODER)
"""What is tried at every layer."""


@dataclass(frozen=True)
class Way:
    """One way to switch, and what it did on held-out prompts.

    Attributes:
        judged: success, intact and clean KL (from the host as it is), with completions.
        skills: shares of answers that are as they should be, by skill; see ``plugins.KnownModel.skills``.
        parameters: numbers that have to be kept to do it; None where it needs the second model at hand.
        site: where; empty for weights.
    """

    judged: Condition
    skills: Mapping[str, Estimate]
    parameters: int | None
    site: str = ""


@dataclass(frozen=True, repr=False)
class Switch:
    """Every way to switch, side by side.

    Attributes:
        task: its name.
        host: the model that is changed.
        donor: the model that it should behave as.
        host_parameters: how many the host has.
        layers: for each site and way of ``ACTIVATIONS``, what it did on validation prompts.
        ways: by name, in the order in which they are shown.
        prompts: held-out prompts that all ways were judged on.
        details: subject, direction, n, seed, ranks, sites.
    """

    task: str
    host: ModelIdentity
    donor: ModelIdentity
    host_parameters: int
    layers: tuple[tuple[str, str, Condition], ...]
    ways: Mapping[str, Way]
    prompts: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """What the mapped way does, costs and needs."""
        before, after = self.ways["unswitched"], self.ways[MAPPED]
        lost = max((before.skills[s].value - after.skills[s].value for s in after.skills), default=0.0)
        share = (after.parameters or 0) / self.host_parameters
        return (
            f"A map of rank {self.details['rank']} at {after.site}, {share:.2%} of the model's parameters, takes success "
            f"from {percent(before.judged.success.value)} to {percent(after.judged.success.value)} (n = "
            f"{after.judged.success.n}); {percent(after.judged.intact.value)} of the answers are valid, no skill loses "
            f"more than {max(lost, 0.0):.3f}."
        )

    def recovered(self, name: str) -> float:
        """Share of the way from the host to the donor in success: 0 is the host, 1 the donor; NaN if they are alike."""
        host, donor, this = (self.ways[way].judged.success.value for way in ("unswitched", "donor", name))
        return (this - host) / (donor - host) if donor != host else float("nan")

    def to_frame(self) -> "pd.DataFrame":
        """A row for each way: success, intact, clean KL, skills, share recovered, parameters as a share of the host's."""
        import pandas as pd

        rows = []
        for name, way in self.ways.items():
            row: dict[str, Any] = {"way": name, "site": way.site}
            for what in ("success", "intact"):
                share = getattr(way.judged, what)
                row |= {what: share.value, f"{what}_low": share.low, f"{what}_high": share.high}
            row |= {"clean_kl": way.judged.clean_kl, "recovered": self.recovered(name), "n": way.judged.success.n}
            row |= {skill: share.value for skill, share in way.skills.items()}
            row["parameters"] = float("nan") if way.parameters is None else way.parameters / self.host_parameters
            rows.append(row)
        return pd.DataFrame(rows).set_index("way")

    def plot(self) -> "Figure":
        """Success, intact and clean KL, block by block, of each way that is tried at every layer."""
        from interp_transfer.plots.strength import strength_curves

        rows = [{**judged.to_dict(), "condition": name, "strength": layer_of(site)} for site, name, judged in self.layers]
        title = f"{self.task}: {self.host.name} as {self.donor.name}, validation prompts"
        return strength_curves(rows, title=title, below="block whose input is replaced")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "task": self.task,
            **self.details,
            "host": {"name": self.host.name, "fingerprint": self.host.fingerprint, "parameters": self.host_parameters},
            "donor": {"name": self.donor.name, "fingerprint": self.donor.fingerprint},
            "layers": [{"site": site, "way": name, **judged.to_dict()} for site, name, judged in self.layers],
            "ways": {
                name: {
                    "site": way.site,
                    "parameters": way.parameters,
                    **way.judged.to_dict(),
                    "skills": {skill: share_to_dict(share) for skill, share in way.skills.items()},
                }
                for name, way in self.ways.items()
            },
        }

    def __repr__(self) -> str:
        lines = [
            f"  {name:24s} success {way.judged.success:.2f}  intact {way.judged.intact:.2f}  clean KL {way.judged.clean_kl:.3f}"
            for name, way in self.ways.items()
        ]
        return f"Switch({self.task}: {self.host.name} as {self.donor.name})\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        title = html.escape(f"{self.task}: {self.host.name} as {self.donor.name}")
        return f"<p><b>{title}</b></p>{self.to_frame().round(3).to_html(escape=True)}"


def largest_rank(width: int, parameters: int, share: float = SHARE) -> int:
    """The largest rank of a low-rank update whose two factors and bias are at most a share of so many parameters.

    Raises:
        ValueError: where not even rank 1 is.
    """
    rank = int((share * parameters - width) // (2 * width))
    if rank < 1:
        raise ValueError(f"share={share:g} of {parameters} parameters is less than a map of rank 1 between {width} dimensions")
    return min(rank, width)


def switch(
    host: HookedModel,
    donor: HookedModel,
    task: Task,
    *,
    sites: str | Sequence[str] | None = None,
    share: float = SHARE,
    others: Mapping[str, tuple[HookedModel, int]] | None = None,
    n: int = 200,
    validation: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Switch:
    """Make ``host`` behave as ``donor`` by every way, and judge what each does and costs.

    Args:
        host: the model that is changed, such as a backdoored one.
        donor: the model that it should behave as, such as its base; of the same architecture and tokenizer.
        task: prompts and judge, such as ``load_task("switch")``; its texts are what maps are fitted on.
        sites: where activations are replaced; the input of every block but the first unless given. Each way takes the one
            that leaves most answers intact on validation prompts, then the one that costs least.
        share: of the host's parameters that the low-rank map may have; of the ranks that it allows, the one is taken that
            leaves most answers intact on validation prompts, then the one that costs least.
        others: further models of the host's architecture to stand beside, by name, each with the numbers that have to be kept
            for it: the host with a LoRA merged, say.
        n: held-out prompts; also of each skill.
        validation: validation prompts, for the choice of sites and strengths.
        seed: of everything that is drawn.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: before any long work, for two models of different widths or tokenizers, unknown sites, or a share that
            allows no map.
    """
    names = expand_sites(host, "blocks.*.hook_resid_pre")[1:] if sites is None else expand_sites(host, sites)
    parameters, width = parameter_count(host), int(host.cfg.d_model)
    rank = largest_rank(width, parameters, share)
    for name, other in {"donor": donor, **{name: m for name, (m, _) in (others or {}).items()}}.items():
        if int(other.cfg.d_model) != width or int(other.cfg.n_layers) != int(host.cfg.n_layers):
            raise ValueError(f"{name} is of another shape than {identity(host)}: a switch is between a model and its fine-tune")
    if tokenizer_fingerprint(host) != tokenizer_fingerprint(donor):
        raise ValueError(f"{identity(host)} and {identity(donor)} have different tokenizers: a switch needs one")
    first, test = (
        evaluator(host, task, "validation", n=validation, seed=seed),
        evaluator(host, task, "test", n=n, seed=seed, clean_prompts=n),
    )
    pairs = collect(host, donor, task.texts("train"), names, names, progress=progress)

    def fitted(site: str, kind: str, shuffled: bool = False, **options: Any) -> Mapper:
        chosen = pairs.shuffled(seed) if shuffled else pairs
        return fit(chosen, kind, sites=(site, site), seed=seed, progress=False, **options)

    ranks = [r for r in RANKS if r < rank] + [rank]
    makers: dict[str, Callable[[str], list[Intervention]]] = {
        DIRECT: lambda site: [follow(donor, site, site)],
        MAPPED: lambda site: [mapped(fitted(site, "low_rank_update", rank=r)) for r in ranks],
        AUTOENCODER: lambda site: [mapped(fitted(site, "autoencoder", width="paper"))],
    }
    layers: list[tuple[str, str, Condition]] = []
    made: dict[tuple[str, str], Intervention] = {}
    total = len(names) * len(makers)
    with tqdm(total=total, desc="layers", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False) as bar:
        for site in names:
            for name, make in makers.items():
                tried = [(put, first.judge([(put,)], 0.0, f"{name} at {site}", progress=False)) for put in make(site)]
                made[name, site], judged = max(tried, key=lambda one: _merit(one[1]))
                layers.append((site, name, judged))
                bar.update()
    best = {name: _best_site(layers, name) for name in makers}
    ways = _Ways(test, skills_of(host, task), n)
    ways.add("unswitched", ())
    ways.within("donor", lambda: weights_from(host, donor), lambda _: None)
    ways.add(DIRECT, (made[DIRECT, best[DIRECT]],), None)
    ways.add(MAPPED, (made[MAPPED, best[MAPPED]],), _size(made[MAPPED, best[MAPPED]]))
    ways.add(AUTOENCODER, (made[AUTOENCODER, best[AUTOENCODER]],), _size(made[AUTOENCODER, best[AUTOENCODER]]))
    here = best[MAPPED]
    ways.add("vector", (_vector(host, task, here, first),), width)
    change = made[MAPPED, here]
    taken = _mapper(change).card.settings["rank"]
    ways.add("shuffled", (mapped(fitted(here, "low_rank_update", shuffled=True, rank=taken)),))
    ways.draws("random", [(random_change(change, draw),) for draw in range(seed, seed + RANDOM_DRAWS)])
    ways.add("mean_ablated", (mean_ablation(host, task, change),))
    n_layers = int(host.cfg.n_layers)
    counts = sorted({max(1, n_layers * k // 4) for k in (1, 2, 3)})
    for count in counts:
        ways.within(f"weights: {count} of {n_layers} blocks", lambda count=count: weights_from(host, donor, "spaced", count))
    for scheme in ("blocks", "embeddings"):
        ways.within(f"weights: {scheme}", lambda scheme=scheme: weights_from(host, donor, scheme))
    for name, (other, kept) in (others or {}).items():
        ways.within(name, lambda other=other: weights_from(host, other), lambda _, kept=kept: kept)
    details = {
        "subject": task.options.get("subject"),
        "direction": task.options.get("direction"),
        "n": n,
        "validation": validation,
        "seed": seed,
        "rank": taken,
        "largest_rank": rank,
        "rows": len(pairs),
    }
    return Switch(task.name, identity(host), identity(donor), parameters, tuple(layers), ways.found, test.prompts, details)


def mapped(mapper: Mapper) -> Intervention:
    """Put in a model's place, at the mapper's source site and at every token, what the mapper makes of its activations.

    For a mapper between two models of one width. The model that it acts on is the mapper's source.
    """
    return Intervention(mapper.source.site, Mapped(mapper), model=mapper.source.model)


@dataclass(frozen=True, eq=False)
class Mapped:
    """f(a)."""

    mapper: Mapper

    def __call__(self, a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The rows, mapped."""
        return self.mapper(a.to(self.mapper.shift_in.device)).to(a)


@dataclass(frozen=True, eq=False)
class RandomChange:
    """a + |f(a) - a| times one random unit vector: as long a change as the mapper's, and no better aimed."""

    transform: Mapped
    seed: int

    def __call__(self, a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The rows, changed."""
        drawn = torch.randn(a.shape[1], generator=torch.Generator().manual_seed(self.seed)).to(a)
        return a + (self.transform(a) - a).norm(dim=1, keepdim=True) * drawn / drawn.norm()


def random_change(like: Intervention, seed: int) -> Intervention:
    """A random change as long, at every token, as that of an intervention of ``mapped``."""
    assert isinstance(like.transform, Mapped)
    return Intervention(like.site, RandomChange(like.transform, seed), like.positions, model=like.model)


def _mapper(given: Intervention) -> Mapper:
    assert isinstance(given.transform, Mapped)
    return given.transform.mapper


def _size(given: Intervention) -> int:
    return _mapper(given).card.parameters


def _best_site(layers: Sequence[tuple[str, str, Condition]], name: str) -> str:
    mine = [(_merit(judged), site) for site, way, judged in layers if way == name]
    return max(mine)[1]


def _merit(judged: Condition) -> tuple[float, float]:
    return judged.intact.value, -judged.clean_kl


def _vector(host: HookedModel, task: Task, site: str, first: Evaluator) -> Intervention:
    """The task's own vector at that site, as strong as the budget allows it to be useful."""
    vector = extract(host, task.contrast("train"), site)
    swept = sweep_strengths(first, lambda x: [add(vector, x, task.positions)], progress=False)
    return add(vector, choose(swept, task.budget).strength, task.positions)


class _Ways:
    """Judges one way after the other on the same prompts and skills."""

    def __init__(self, test: Evaluator, able: Able | None, n: int) -> None:
        self._test, self._n, self._able = test, n, able
        self.found: dict[str, Way] = {}

    def add(self, name: str, given: Sequence[Intervention], parameters: int | None = 0) -> None:
        """A way that acts on activations."""
        self.draws(name, [tuple(given)], parameters)

    def draws(self, name: str, drawn: Sequence[tuple[Intervention, ...]], parameters: int | None = 0) -> None:
        """Several draws of a random way, pooled; skills are those of the first."""
        judged = self._test.judge(drawn, 0.0, name, progress=False)
        site = " ".join(str(i.site) for i in drawn[0])
        self.found[name] = Way(judged, self._skills(*drawn[0]), parameters, site)

    def within(
        self, name: str, within: Callable[[], AbstractContextManager[int]], size: Callable[[int], int | None] = int
    ) -> None:
        """A way that changes weights, for the length of a block; ``size`` makes of their number what has to be kept."""
        test = self._test
        with within() as changed:
            [said] = test.completions([()], progress=False)
            able = self._skills()
        [forced] = teacher_forced_each(test.model, test.clean_kl.prompts, test.clean_kl.answers, [()], within=within)
        judged = condition(test.task, test.prompts, [said], cost(forced.kl), 0.0, name)
        self.found[name] = Way(judged, able, size(changed))

    def _skills(self, *given: Intervention) -> Mapping[str, Estimate]:
        return {} if self._able is None else self._able(self._test.model, [given], n=self._n)[0]
