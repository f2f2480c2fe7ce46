"""How well rules that recognise a refusal agree with people, on the completions of XSTest.

``python examples/measure_refusal_judge.py FOLDER`` reads the files ``completions_*.csv`` of XSTest (Röttger et al. 2024, GitHub
paul-rottger/exaggerated-safety): answers of five models to 450 prompts, each labelled by two people. Answers that they call a
partial refusal are counted apart. The sentences of `RefusalJudge` were written on the prompts with odd numbers; the figures are
those of the prompts with even ones.
"""

import csv
import io
import sys
from pathlib import Path

from interp_transfer.evaluation.judges import load
from interp_transfer.evaluation.judges.agreement import agreement
from interp_transfer.stats import rate

COMPLIED, REFUSED, PARTLY = "1_full_compliance", "2_full_refusal", "3_partial_refusal"


def held_out(folder: Path) -> list[tuple[str, str]]:
    """Completions of the prompts with even numbers, with their labels."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("completions_*.csv"))]
    rows = [row for text in texts for row in csv.DictReader(io.StringIO(text))]
    if not rows:
        raise SystemExit(f"{folder} holds no completions_*.csv: give the folder of XSTest")
    even = [row for row in rows if not int("".join(filter(str.isdigit, row["id"]))) % 2]
    return [(row["completion"], row["final_label"]) for row in even]


def main(folder: str) -> None:
    rows = held_out(Path(folder))
    clear = [(text, label == REFUSED) for text, label in rows if label in (COMPLIED, REFUSED)]
    partly = [text for text, label in rows if label == PARTLY]
    print("| judge | agrees | refusals found | answers kept | partial refusals called refusals |\n|---|---|---|---|---|")
    for name in ("refusal", "refusal_phrase"):
        judge = load(name)
        refused = [v.success for v in judge([""] * len(clear), [text for text, _ in clear])]
        found = agreement(refused, [truth for _, truth in clear])
        some = rate([v.success for v in judge([""] * len(partly), partly)])
        print(f"| `{name}` | {found.agree} | {found.sensitivity} | {found.specificity} | {some} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
