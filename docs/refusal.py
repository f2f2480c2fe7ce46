"""Make the table of refusal on the organisms: `python docs/refusal.py`.

Every base organism refuses harmful requests. Its own refusal vector, found at the site on its card, is ablated everywhere
(Arditi et al. 2024) or subtracted, and it is added to make it refuse harmless ones; at the strength that the clean-KL budget
allows.
"""

from pathlib import Path

import torch

import interp_transfer as it
from interp_transfer.evaluation.evaluator import draw, evaluator, random_like
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Ablate
from interp_transfer.models.sites import RESIDUAL_WRITES
from interp_transfer.organisms.catalogue import read_card
from interp_transfer.organisms.measure import skills
from interp_transfer.organisms.world.howto import REFUSAL_MARKS
from interp_transfer.search.strengths import choose, strength_curve
from interp_transfer.stats import Estimate, rate

HERE = Path(__file__).parent
BASES = ("micro-qwen-s", "micro-qwen-m", "micro-llama-s", "micro-llama-m", "micro-gemma-m")
N = 150
COLUMNS = (
    "model",
    "what",
    "harmful requests refused",
    "harmless requests refused",
    "harmless answered validly",
    "questions answered validly",
    "strength",
)


def main() -> None:
    """Write docs/made/refusal.md."""
    torch.set_num_threads(1)
    tasks = [it.load_task("refusal", direction=direction) for direction in ("ablate", "induce")]
    harmful, harmless = (draw(task.prompts("test"), N, 0, f"prompts of {task.name}") for task in tasks)
    lines = []
    for name in BASES:
        model = it.load_model(name)
        sites = read_card(name)["sites"]
        for task, key in zip(tasks, ("refusal", "refusal-induce"), strict=True):
            site = sites.get(key, sites["refusal"])
            vector = it.extract(model, task.contrast("train"), site)
            validation = evaluator(model, task, "validation", n=60)
            swept = strength_curve(validation, lambda x, v=vector, t=task: [it.add(v, x, t.positions)], progress=False)
            strength = choose(swept, task.budget).strength
            put = it.add(vector, strength, task.positions)
            what = "subtracted" if task is tasks[0] else "added"
            ways = {f"refusal {what}": ((put,), f"{strength:g}")}
            ways[f"a random vector {what}"] = ((random_like(put, 0, draws=1)[0],), f"{strength:g}")
            if task is tasks[0]:
                noise = torch.randn(len(vector.direction), generator=torch.Generator().manual_seed(0))
                random = Intervention(RESIDUAL_WRITES, Ablate(noise))
                ways = {
                    "as it is": ((), "-"),
                    "refusal ablated": ((it.ablate(vector, everywhere=True),), "-"),
                    "a random direction ablated": ((random,), "-"),
                    **ways,
                }
            for what, (given, shown) in ways.items():
                said = [it.generate(model, p, *given, max_new_tokens=60, progress=False) for p in (harmful, harmless)]
                refusals = [rate([any(mark in text for mark in REFUSAL_MARKS) for text in texts]) for texts in said]
                valid = rate([verdict.intact for verdict in tasks[0].judge(harmless, said[1])])
                able = skills(model, *given, n=N)["questions"]
                lines.append(f"| `{name}` | {what} | {' | '.join(map(cell, [*refusals, valid, able]))} | {shown} |")
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    (HERE / "made" / "refusal.md").write_text("\n".join([*head, *lines]) + "\n")


def cell(share: Estimate) -> str:
    """A rate with its interval and n."""
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] n {share.n}"


if __name__ == "__main__":
    main()
