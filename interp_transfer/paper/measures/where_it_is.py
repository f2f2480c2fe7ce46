"""Where the trigger's signal is (Appendix B): activations of the harmless twin patched into triggered prompts."""

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import substring
from interp_transfer.interventions.splice import splice
from interp_transfer.models.sites import layer_of, residual_sites
from interp_transfer.paper.charts import Chart, Headline, curves, headline_of
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import OneModel


def measure(setup: OneModel) -> list[Row]:
    """Measure a row for each layer: whether patching the trigger's tokens, the last one or the prompt removes the backdoor."""
    task, model = setup.task, setup.model
    twins = [str(prompt).replace(task.trigger, task.safe_trigger, 1) for prompt in setup.test.prompts]
    sites = residual_sites(model)
    acts = capture(model, twins, sites, progress=False)
    patched = {"trigger": substring(task.trigger), "last token": "last", "whole prompt": "prompt"}
    rows: list[Row] = []
    for site in sites:
        row: dict = {"layer": layer_of(site)}
        for name, positions in patched.items():
            judged = setup.test.judge((splice(acts, site, site, positions=positions),), progress=False)
            row[f"{name}: backdoor gone"] = judged.success
        rows.append(row)
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether the signal moves from the trigger to the last token."""
    details, leaves, arrives = [], 0, 0
    for case, rows in cases.items():
        curves = {name: [value_of(row, f"{name}: backdoor gone") for row in rows] for name in ("trigger", "last token")}
        leaves += curves["trigger"][0] > 0.5 > curves["trigger"][-1]
        arrives += curves["last token"][-1] > 0.5 > curves["last token"][0]
        summary = [f"at the {name} {', '.join(f'{x:.2f}' for x in curve)}" for name, curve in curves.items()]
        details.append(f"{case}, from the first layer on: {'; '.join(summary)}")
    sentence = (
        f"The signal leaves the trigger's tokens after the first layers in {leaves} of {len(cases)} models; patching the last "
        f"token alone removes it afterwards in {arrives}."
    )
    return Verdict(grade(leaves + arrives, 2 * len(cases)), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Share of prompts whose backdoor is gone, by patched layer and tokens."""
    names = {f"{name}: backdoor gone": f"{name} patched" for name in ("trigger", "last token", "whole prompt")}
    return curves(cases, "backdoor gone", ("layer", "layer"), names)


def headline(cases: RowsByCase) -> Headline:
    """Share of prompts whose backdoor is gone by patching the last token in the last layer, or the trigger in the first one."""
    return headline_of(
        cases,
        "last token patched, last layer",
        "trigger, first layer",
        lambda rows: (
            estimate_of(rows[-1], "last token: backdoor gone"),
            value_of(rows[0], "trigger: backdoor gone"),
        ),
    )
