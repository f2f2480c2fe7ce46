"""Read the two JSON files of a run folder, and check them.

Both may come from another version, another machine or a text editor. `Result.to_dict` stores a digest of every field of
result.json, so a field is read only if its digest fits; completions.json has no digests, and the type of each of its fields is
checked. What is wrong is named. Parts of result.json that only `run` writes, and `Result.save` does not, may be missing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from typeguard import TypeCheckError

from interp_transfer.escape import without_surrogates
from interp_transfer.io import hashed, typed
from interp_transfer.names import cut, first_line, quoted

SCHEMA = 2
"""Of result.json; the same as `evaluation.compare.SCHEMA`, which is not imported because it would load torch."""
READABLE = (1, SCHEMA)  # 2 adds ``options``, ``sites`` and ``texts``

ResultJson = dict[str, Any]
"""The content of result.json, see `evaluation.compare.Result.to_dict`."""
REQUIRED = ("task", "seed", "versions", "target", "conditions")
"""Fields that every result.json has."""


class CompletionJson(TypedDict):
    """A completion, and the verdict on it."""

    completion: str
    success: bool
    intact: bool
    reason: str
    differ: NotRequired[bool]


class TokensJson(TypedDict):
    """The tokens of a prompt, and which of them are steered."""

    pieces: list[str]
    steered: list[bool]
    generated_steered: bool


class CompletionsJson(TypedDict):
    """completions.json."""

    prompts: list[str]
    conditions: dict[str, list[CompletionJson]]
    tokens: NotRequired[list[TokensJson]]


@dataclass(frozen=True)
class RunFolder:
    """The two files of a run, read and checked."""

    result: ResultJson
    completions: CompletionsJson


def read_run(folder: Path) -> RunFolder:
    """Read and check `result.json` and `completions.json`.

    Raises:
        ValueError: when a file is missing, damaged or of another schema; names file and field.
    """
    result = read_result(folder / "result.json")
    path = folder / "completions.json"
    try:
        completions = typed(_whole(_load(path)), CompletionsJson)
    except TypeCheckError as error:
        wrong = cut(" ".join(str(error).split()))  # keys are part of it, and may hold line breaks
        raise ValueError(f"{path}: {wrong}: read it with the version that wrote it, or do the run again") from None
    _check_lengths(completions, path)
    return RunFolder(result, completions)


def read_result(path: Path) -> ResultJson:
    """Read and check a `result.json`.

    Raises:
        ValueError: when it is missing, damaged, of another schema, or was changed after the run; names file and field.
    """
    result = _load(path)
    schema = result.get("schema")
    if schema not in READABLE:
        known = " or ".join(map(str, READABLE))
        raise ValueError(
            f"{path}: schema {quoted(schema)}, expected {known}: read it with the version that wrote it, or do the run again"
        )
    digests = result.get("digests")
    if not isinstance(digests, dict):
        raise ValueError(f"{path}: field 'digests' is missing or no object: {_REMEDY}")
    for name in REQUIRED:
        if name not in result:
            raise ValueError(f"{path}: field {name!r} is missing: {_REMEDY}")
    for name in {**result, **digests}:
        if name == "digests":
            continue
        if name not in digests:
            raise ValueError(
                f"{path}: field {quoted(name)} has no digest, so it may have been changed after the run: do the run again"
            )
        if name not in result or hashed(result[name]) != digests[name]:
            raise ValueError(f"{path}: field {quoted(name)} was changed after the run: {_REMEDY}")
    if not result["conditions"]:
        raise ValueError(f"{path}: field 'conditions' is empty: {_REMEDY}")
    return _whole(result)


_REMEDY = "the file is damaged, do the run again"


def _load(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a number")

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: give the folder of a finished run, which holds result.json and completions.json"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}): give the folder of a finished run") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({first_line(error)}): {_REMEDY}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(data).__name__}: {_REMEDY}")
    return data


def _whole(data: dict[str, Any]) -> dict[str, Any]:
    """The same without halves of surrogate pairs, which JSON may hold and UTF-8 does not have."""
    return json.loads(without_surrogates(json.dumps(data, ensure_ascii=False)))


def _check_lengths(completions: CompletionsJson, path: Path) -> None:
    n = len(completions["prompts"])
    for name, judged in completions["conditions"].items():
        if len(judged) != n:
            raise ValueError(
                f"{path}: field {quoted('conditions.' + name)} has {len(judged)} completions for {n} prompts: {_REMEDY}"
            )
    marked = completions.get("tokens", [])
    if len(marked) > n:
        raise ValueError(f"{path}: field 'tokens' has {len(marked)} entries for {n} prompts: {_REMEDY}")
    for index, tokens in enumerate(marked):
        if len(tokens["pieces"]) != len(tokens["steered"]):
            raise ValueError(f"{path}: field 'tokens[{index}]' has unequal numbers of pieces and marks: {_REMEDY}")
