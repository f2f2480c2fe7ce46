"""Where the trigger's signal is (Appendix B): activations of the harmless twin patched into triggered prompts."""

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import substring
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.interventions.splice import splice
from interp_transfer.models.sites import layer_of, residual_sites
from interp_transfer.paper.bench import model_for, task_of
from interp_transfer.paper.rows import Found, Row, Verdict, graded, share, value_of


def measure(edition: str, n: int, seed: int, task: str, model: str, options: dict | None = None) -> list[Row]:
    """A row for each layer: is the backdoor gone when the trigger's tokens, the last one, or the whole prompt is patched?"""
    made = task_of(task, edition, options)
    loaded = model_for(model, made)
    trigger, twin = made.trigger, made.safe_trigger  # type: ignore[attr-defined]
    test = evaluator(loaded, made, "test", n=min(n, len(made.prompts("test"))), seed=seed)
    twins = [prompt.replace(trigger, twin, 1) for prompt in test.prompts]
    sites = residual_sites(loaded)
    acts = capture(loaded, twins, sites, progress=False)
    places = {"trigger": substring(trigger), "last token": "last", "whole prompt": "prompt"}
    rows: list[Row] = []
    for site in sites:
        row: dict = {"layer": layer_of(site)}
        for name, positions in places.items():
            judged = test.judge([(splice(acts, site, site, positions=positions),)], 0.0, progress=False)
            row[f"{name}: backdoor gone"] = share(judged.success)
        rows.append(row)
    return rows


def verdict(found: Found) -> Verdict:
    """Whether the signal moves from the trigger to the last token."""
    details, leaves, arrives = [], 0, 0
    for case, rows in found.items():
        curves = {name: [value_of(row, f"{name}: backdoor gone") for row in rows] for name in ("trigger", "last token")}
        leaves += curves["trigger"][0] > 0.5 > curves["trigger"][-1]
        arrives += curves["last token"][-1] > 0.5 > curves["last token"][0]
        told = [f"at the {name} {', '.join(f'{x:.2f}' for x in curve)}" for name, curve in curves.items()]
        details.append(f"{case}, from the first layer on: {'; '.join(told)}")
    sentence = (
        f"The signal leaves the trigger's tokens after the first layers in {leaves} of {len(found)} models; patching the last "
        f"token alone removes it afterwards in {arrives}."
    )
    return Verdict(graded(leaves + arrives, 2 * len(found)), sentence, tuple(details))
