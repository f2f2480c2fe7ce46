"""Small data of the forms that the edition "real" takes by path, made up here."""

import csv
import io
import json
from itertools import product
from pathlib import Path

WORDS = [
    "apple",
    "bear",
    "cloud",
    "door",
    "eagle",
    "flame",
    "grape",
    "house",
    "iron",
    "jar",
    "kite",
    "lamp",
    "moon",
    "nest",
    "owl",
    "pear",
    "quill",
    "rose",
    "star",
    "tree",
]
ANSWERS = {
    "1_full_compliance": "Take a bowl and stir.",
    "2_full_refusal": "I cannot help with that.",
    "3_partial_refusal": "It's not appropriate to ask. Instead:\n1. Rest.\n2. Read.\n3. Walk.",
}


def make_data(folder: Path) -> Path:
    """Write all data sets into a folder."""
    for name in ("xstest", "truth", "refusal", "traits"):
        (folder / name).mkdir(parents=True)
    for model in ("one", "two"):
        rows = []
        for number, word in enumerate(WORDS, 1):
            label = list(ANSWERS)[number // 2 % 3]
            labels = {"annotation_1": label, "annotation_2": label, "final_label": label}
            rows.append({"id": f"v2-{number}", "prompt": f"What about the {word}?", "completion": ANSWERS[label], **labels})
        write_csv(folder / "xstest" / f"completions_{model}.csv", rows)
    prompts = [
        {"id": k, "prompt": f"How do I kill the {word}?", "label": "safe" if k % 2 else "unsafe"}
        for k, word in enumerate(WORDS)
    ]
    write_csv(folder / "xstest" / "xstest_prompts.csv", prompts)
    truth = folder / "truth"
    numbers = [(a, b) for a in WORDS for b in ("lake", "hill")]
    write_csv(
        truth / "cities.csv",
        [{"statement": f"The city of {a} is in {b}.", "label": int(b == "lake"), "city": a} for a, b in numbers],
    )
    write_csv(
        truth / "larger_than.csv",
        [{"statement": f"The {a} is larger than the {b}.", "label": int(b == "lake"), "n1": a, "n2": a} for a, b in numbers],
    )
    write_csv(
        truth / "sp_en_trans.csv",
        [{"statement": f"The word '{a}' means '{b}'.", "label": int(b == "lake")} for a, b in numbers],
    )
    write_csv(
        truth / "companies_true_false.csv",
        [{"statement": f"{a.title()} Works sells {b}.", "label": int(b == "lake")} for a, b in numbers],
    )
    for side, verb in (("harmful", "Break"), ("harmless", "Paint")):
        for split in ("train", "val", "test"):
            instructions(folder / "refusal" / f"{side}_{split}.json", [f"{verb} the {word} of {split}." for word in WORDS])
    for name in ("jailbreakbench", "harmbench_test", "advbench"):
        shared = [f"Break the {word} of train." for word in WORDS] if name == "advbench" else []  # as in the real files
        instructions(folder / "refusal" / f"{name}.json", [*shared, *(f"Steal the {word} of {name}." for word in WORDS)])
    two = [{"pos": f"Be formal, {word}.", "neg": f"Be casual, {word}."} for word in WORDS[:3]]
    (folder / "traits" / "formal.json").write_text(json.dumps({"instruction": two, "questions": []}), encoding="utf-8")
    asked = [
        json.dumps({"question": f"{verb} the {word}?", "id": k})
        for k, (verb, word) in enumerate(product(("Draw", "Paint"), WORDS))
    ]
    (folder / "traits" / "extraction_questions.jsonl").write_text("\n".join(asked), encoding="utf-8")
    return folder


def write_csv(file: Path, rows: list[dict[str, object]]) -> None:
    """Write rows with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    file.write_text(text.getvalue(), encoding="utf-8")


def instructions(file: Path, texts: list[str]) -> None:
    """Write a file of instructions."""
    file.write_text(json.dumps([{"instruction": text, "category": None} for text in texts]), encoding="utf-8")
