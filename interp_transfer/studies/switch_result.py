"""The result of a safety switch: every way to switch, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp_transfer.escape import data_frame, html_table, visible
from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.models.identity import ModelIdentity
from interp_transfer.models.sites import layer_of
from interp_transfer.plots.style import percent
from interp_transfer.stats import Estimate, share_to_dict

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

MAPPED, AUTOENCODER, DIRECT = "mapped", "paper's autoencoder", "direct patching"
ACTIVATIONS = (DIRECT, MAPPED, AUTOENCODER)
"""Ways that are tried at every layer."""


@dataclass(frozen=True)
class Way:
    """One way to switch, and its effect on held-out prompts.

    Attributes:
        judged: success, intact and clean KL (from the unchanged host), with completions.
        skills: share of correct answers by skill; see ``plugins.KnownModel.skills``.
        parameters: number of parameters that the way has to store; None if it needs the second model itself.
        site: hook point; empty for weights.
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
        donor: the model that the host should behave as.
        host_parameters: number of the host's parameters.
        layers: site, way and condition on validation prompts, for each way of ``ACTIVATIONS`` at each site.
        ways: ways by name, in the order in which they are shown.
        prompts: held-out prompts that all ways were judged on.
        details: subject, direction, n, seed, ranks, sites.
    """

    task: str
    host: ModelIdentity
    donor: ModelIdentity
    host_parameters: int
    layers: tuple[tuple[str, str, Condition], ...]
    ways: Mapping[str, Way]
    prompts: tuple[Any, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """Effect, cost and size of the mapped way, in words."""
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
        """Success between the host (0) and the donor (1); NaN if the two have the same."""
        host, donor, this = (self.ways[way].judged.success.value for way in ("unswitched", "donor", name))
        return (this - host) / (donor - host) if donor != host else float("nan")

    def to_frame(self) -> "pd.DataFrame":
        """A row for each way: success, intact, clean KL, skills, share recovered, parameters as a share of the host's."""
        rows = []
        for name, way in self.ways.items():
            row: dict[str, Any] = {"way": name, "site": way.site}
            row |= way.judged.success.columns("success") | way.judged.intact.columns("intact")
            row |= {"clean_kl": way.judged.clean_kl, "recovered": self.recovered(name), "n": way.judged.success.n}
            row |= {skill: share.value for skill, share in way.skills.items()}
            row["parameters"] = float("nan") if way.parameters is None else way.parameters / self.host_parameters
            rows.append(row)
        return data_frame(rows).set_index("way")

    def plot(self) -> "Figure":
        """Success, intact and clean KL by block, for each way that is tried at every layer."""
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
        lines = [f"  {name:24s} {way.judged}" for name, way in self.ways.items()]
        return visible(f"Switch({self.task}: {self.host.name} as {self.donor.name})\n" + "\n".join(lines))

    def _repr_html_(self) -> str:
        return html_table(f"{self.task}: {self.host.name} as {self.donor.name}", self.to_frame())
