"""Data that are given by path: XSTest, true and false statements, prompts of Arditi et al., and system prompts for traits.

``--data DIR`` names a folder with a folder for each: ``xstest`` (files ``completions_*.csv`` and ``xstest_prompts.csv`` of
GitHub paul-rottger/exaggerated-safety), ``truth`` (CSV files of Geometry of Truth), ``refusal`` (the splits and processed sets
of GitHub andyrdt/refusal_direction) and ``traits`` (``data/traits`` and the extraction questions of GitHub
safety-research/assistant-axis). Nothing of them is part of the package.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.io import parse_json
from interp_transfer.names import find, quoted
from interp_transfer.prompts.jsonl import read_jsonl

LARGEST = 50_000_000
"""Bytes that a file may have."""
LABELS = {"1_full_compliance": "complied", "2_full_refusal": "refused", "3_partial_refusal": "partly"}
COMPANY = re.compile(r"(.+?) (?:operates|has|engages|is|provides|produces|sells) ")
TOPICS: Mapping[str, Callable[[Mapping[str, str]], Sequence[str]]] = {
    "cities": lambda row: [row["city"]],
    "larger_than": lambda row: [row["n1"], row["n2"]],
    "sp_en_trans": lambda row: [row["statement"].split("'")[1]],
    "companies_true_false": lambda row: COMPANY.split(row["statement"])[1:2],
}
"""Topics of statements, and what a statement is about: nothing that a statement of one split is about is in another."""


@dataclass(frozen=True)
class Labelled:
    """A completion that two people labelled.

    Attributes:
        prompt: what was asked.
        number: of the prompt.
        completion: of some model.
        labels: of the first and the second person, and the final one: "complied", "refused" or "partly".
    """

    prompt: str
    number: int
    completion: str
    labels: tuple[str, str, str]

    @property
    def tuning(self) -> bool:
        """Whether rules are written, and classifiers trained, on it: its prompt has an odd number."""
        return bool(self.number % 2)


def folder_of(data: Path | None, name: str) -> Path:
    """The folder of a data set.

    Raises:
        ValueError: for one that is missing.
    """
    if data is None or not (data / name).is_dir():
        raise ValueError(
            f"the data {name!r} are not in {str(data) if data else 'any folder'}: give --data DIR with a folder {name}"
        )
    return data / name


def xstest(data: Path | None) -> list[Labelled]:
    """The completions of XSTest with their labels.

    Raises:
        ValueError: for files that are missing, or lack a column or a known label.
    """
    folder = folder_of(data, "xstest")
    found = []
    for file in sorted(folder.glob("completions_*.csv")):
        for number, row in enumerate(_rows(file), 2):
            try:
                first, second, final = (LABELS[row[name]] for name in ("annotation_1", "annotation_2", "final_label"))
                place = int(re.findall(r"\d+", row["id"])[-1])
                found.append(Labelled(row["prompt"], place, row["completion"], (first, second, final)))
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"{file}, row {number}: {quoted(error.args[0])} is missing or no known label") from error
    if not found:
        raise ValueError(f"{folder} holds no completions_*.csv: give the completions of XSTest")
    return found


def safe_prompts(data: Path | None) -> list[str]:
    """The prompts of XSTest that sound unsafe and are safe.

    Raises:
        ValueError: for a file that is missing or lacks a column.
    """
    file = folder_of(data, "xstest") / "xstest_prompts.csv"
    try:
        return [row["prompt"] for row in _rows(file) if row["label"] == "safe"]
    except KeyError as error:
        raise ValueError(f"{file} has no column {quoted(error.args[0])}: give the prompts of XSTest") from error


def statements(data: Path | None, topic: str, split: str) -> tuple[list[str], list[str]]:
    """False and true statements of a topic. Two thirds of what they are about is in "train", the rest in "test".

    A statement about two things, of which one is in each split, is in none, and so is one whose company is not recognized.

    Raises:
        ValueError: for an unknown topic or split, or a file that is missing or lacks a column.
    """
    if topic not in TOPICS or split not in ("train", "test"):
        raise ValueError(f"topic {topic!r}, split {split!r}: choose one of {', '.join(TOPICS)}, and train or test")
    file = folder_of(data, "truth") / f"{topic}.csv"
    sides: tuple[list[str], list[str]] = ([], [])
    for row in _rows(file):
        try:
            things = [hashlib.sha256(f"{topic} {thing}".encode()).hexdigest() for thing in TOPICS[topic](row)]
            if {int(one[:8], 16) % 3 == 0 for one in things} == {split == "test"}:
                sides[int(row["label"])].append(row["statement"])
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{file}: a row has no {quoted(error.args[0])}: give the file of Geometry of Truth") from error
    return sides


def instructions(data: Path | None, name: str) -> list[str]:
    """The instructions of a file of Arditi et al., such as harmful_train or jailbreakbench, each once.

    Raises:
        ValueError: for a file that is missing or no list of instructions.
    """
    file = folder_of(data, "refusal") / f"{name}.json"
    try:
        rows: Any = parse_json(_text(file))
        return list(dict.fromkeys(str(row["instruction"]) for row in rows))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no list of objects with an instruction ({error})") from error


def trait_instructions(data: Path | None, name: str) -> list[tuple[str, str]]:
    """System prompts that bring a trait out, each with one that brings its opposite out.

    Raises:
        ValueError: for an unknown trait, or a file that is damaged.
    """
    file = find(name, {file.stem: file for file in sorted(folder_of(data, "traits").glob("*.json"))}, "trait")
    try:
        plain: Any = parse_json(_text(file))
        return [(str(two["pos"]), str(two["neg"])) for two in plain["instruction"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no trait with pairs of instructions ({error})") from error


def trait_questions(data: Path | None) -> list[str]:
    """The questions that traits are brought out by, each once.

    Raises:
        ValueError: for a file that is missing or no list of questions.
    """
    rows = read_jsonl(folder_of(data, "traits") / "extraction_questions.jsonl", ("question",))
    return list(dict.fromkeys(row["question"] for _, row in rows))


def _rows(file: Path) -> Sequence[Mapping[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(file))))


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file} has more than {LARGEST:,} bytes")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
