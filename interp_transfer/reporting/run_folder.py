"""Read the two JSON files of a run folder, and check them.

Both may come from another version, another machine or a text editor, so every field that is read later is checked here, and a
wrong one is named. Unknown keys are ignored. Parts that only `run` writes, and `Result.save` does not, may be missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from typeguard import TypeCheckError, check_type

from interp_transfer.io import hashed

SCHEMA = 2
"""Of result.json; the same as `evaluation.compare.SCHEMA`, which is not imported because it would load torch."""
READABLE = (1, SCHEMA)  # 2 adds ``options``, ``sites`` and ``texts``


class IntervalJson(TypedDict):
    """The ends of a 95% interval, and its number of prompts."""

    low: float
    high: float
    n: int


class RateJson(IntervalJson):
    """A share of prompts."""

    rate: float


class EstimateJson(IntervalJson):
    """A mean."""

    value: float


class DrawJson(TypedDict):
    """The outcome of one draw of a condition, such as a random direction or a seed of a mapper."""

    strength: float
    success: float
    intact: float
    clean_kl: float


class ConditionJson(TypedDict):
    """The outcome of one condition."""

    strength: float
    success: RateJson
    intact: RateJson
    clean_kl: float
    clean_kl_interval: NotRequired[IntervalJson]
    note: NotRequired[str]
    draws: NotRequired[list[DrawJson]]
    readings: NotRequired[dict[str, RateJson]]


class SweepJson(ConditionJson):
    """A point of the search for strengths."""

    condition: str
    draw: NotRequired[int]
    saturated: NotRequired[bool]


class VariantJson(ConditionJson):
    """Another mapper or another way of moving the vector."""

    mapper: str
    mode: str
    fvu: float
    norm: float
    cosine_to_native: float


class ModelJson(TypedDict):
    """A model and a site in it."""

    name: str
    fingerprint: NotRequired[str]
    site: NotRequired[str]
    positions: NotRequired[str]


class CostJson(TypedDict):
    """The change of predictions on fixed tokens."""

    kl: EstimateJson
    agreement: EstimateJson
    loss: EstimateJson
    loss_before: EstimateJson


class SideEffectsJson(TypedDict):
    """The side effects of one condition."""

    clean_valid: RateJson
    clean_shows: RateJson
    skills: dict[str, RateJson]
    clean: CostJson
    english: CostJson
    behaviour: NotRequired[CostJson]
    right: NotRequired[CostJson]
    logit_difference: EstimateJson | None


class ClassFitJson(TypedDict):
    """How well a mapper reproduces one class of tokens."""

    fvu: EstimateJson | None
    cosine: EstimateJson
    norm_ratio: EstimateJson
    share_of_error: EstimateJson
    n: int


class RecoveredJson(TypedDict):
    """Losses with the mapper's activations, the model's own and their mean at the site, in nats per token."""

    loss: float
    plain: float
    ablated: float
    share: float | None


class MapperJson(TypedDict):
    """A mapper and how well it reproduces held-out activations."""

    kind: str
    mode: str
    norm: NotRequired[str]
    parameters: int
    fraction_of_target: float
    fvu: float
    cosine: float
    norm_ratio: float
    rows: NotRequired[int]
    held_out_rows: NotRequired[int]
    recovered: NotRequired[RecoveredJson]
    by_place: NotRequired[dict[str, dict[str, ClassFitJson]]]
    settings: NotRequired[dict[str, Any]]
    training: NotRequired[str]


class VectorJson(TypedDict):
    """The vector, its norm before and after the move, and its cosine to the native one."""

    method: str
    positions: str
    norm: float
    moved_norm: float
    native_norm: float
    cosine_to_native: float


class RuleJson(TypedDict):
    """How strengths were chosen."""

    budget_nats_per_token: float
    fractions: NotRequired[list[float]]
    strengths: NotRequired[list[float]]
    split: str
    n: int
    rule: str


class AskedJson(TypedDict):
    """The arguments of ``run`` for a task and models that were named; a file of pairs by those of ``Task.from_jsonl``."""

    task: str | dict[str, Any]
    direction: str | None
    source: str
    target: str
    mapper: str
    mode: str
    norm: str
    alignment: str
    source_site: str | None
    target_site: str | None
    n: int
    seed: int
    budget: float | None
    directions: NotRequired[int]
    seeds: NotRequired[int]
    strengths: NotRequired[list[float]]
    variants: bool
    side_effects: NotRequired[bool]
    settings: NotRequired[dict[str, Any]]


class DifferenceJson(IntervalJson):
    """A share minus another, on the same prompts, and whether the two are equivalent."""

    difference: float
    margin: float
    equivalent: bool | None


class TextsJson(TypedDict):
    """What mappers were fitted on: number of texts, number of token pairs, and the origin of the texts in words."""

    n: int
    tokens: int
    of: NotRequired[str]


class AlignmentJson(TypedDict):
    """How the tokens of the two models were paired; in chats, the paired and all tokens of the target by role."""

    strategy: str
    coverage: float
    by_role: NotRequired[dict[str, list[int]]]


class SiteSearchJson(TypedDict):
    """How a site was found: first-order effects, and outcomes on validation prompts, by site."""

    site: str
    predicted: dict[str, float]
    tried: dict[str, dict[str, float]]
    budget: float
    n: int


class SiteJson(TypedDict):
    """A site, and whether it was given, named by the model's card or found."""

    site: str
    chosen: str
    search: NotRequired[SiteSearchJson]


class ResultJson(TypedDict):
    """result.json."""

    schema: int
    task: str
    seed: int
    versions: dict[str, str]
    target: ModelJson
    conditions: dict[str, ConditionJson]
    description: NotRequired[str]
    asked: NotRequired[AskedJson | None]
    options: NotRequired[dict[str, Any]]
    digests: NotRequired[dict[str, str]]
    left_out: NotRequired[dict[str, str]]
    source: NotRequired[ModelJson]
    vector: NotRequired[VectorJson]
    moved_against_native: NotRequired[dict[str, DifferenceJson]]
    sites: NotRequired[dict[str, SiteJson]]
    alignment: NotRequired[AlignmentJson]
    texts: NotRequired[TextsJson]
    mapper: NotRequired[MapperJson]
    strength_rule: NotRequired[RuleJson]
    sweep: NotRequired[list[SweepJson]]
    side_effects: NotRequired[dict[str, SideEffectsJson]]
    at_strength_one: NotRequired[dict[str, ConditionJson]]
    variants: NotRequired[list[VariantJson]]


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
    completions = _load(path)
    _check(completions, CompletionsJson, path)
    _check_lengths(completions, path)
    return RunFolder(result, completions)  # pyright: ignore[reportArgumentType]


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
            f"{path}: schema {schema!r}, expected {known}: read it with the version that wrote it, or do the run again"
        )
    _check(result, ResultJson, path)
    for name, digest in result.get("digests", {}).items():
        if name not in result or hashed(result[name]) != digest:
            raise ValueError(f"{path}: field {name!r} was changed after the run: {_REMEDY}")
    if not result["conditions"]:
        raise ValueError(f"{path}: field 'conditions' is empty: {_REMEDY}")
    return result  # pyright: ignore[reportReturnType]


_REMEDY = "the file is damaged, do the run again"


def _load(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a number")

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        # JSON may hold halves of surrogate pairs, which cannot be encoded as UTF-8.
        whole = json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        data = json.loads(whole)
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: give the folder of a finished run, which holds result.json and completions.json"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}): give the folder of a finished run") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): {_REMEDY}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(data).__name__}: {_REMEDY}")
    return data


def _check(value: Any, expected: Any, path: Path, field: str = "") -> None:
    """Check types as `check_type` does, but ignore unknown keys and name the wrong field."""
    if is_typeddict(expected) and isinstance(value, Mapping):
        for key, hint in get_type_hints(expected).items():
            name = f"{field}.{key}".lstrip(".")
            if key in value:
                _check(value[key], hint, path, name)
            elif key in expected.__required_keys__:
                raise ValueError(f"{path}: field {name!r} is missing: {_REMEDY}")
        return
    parts = get_args(expected)
    if get_origin(expected) is dict and isinstance(value, Mapping):
        for key, item in value.items():
            _check(item, parts[1], path, f"{field}.{key}")
        return
    if get_origin(expected) is list and isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, parts[0], path, f"{field}[{index}]")
        return
    if isinstance(value, Mapping) and (known := [part for part in parts if is_typeddict(part)]):  # it or None
        _check(value, known[0], path, field)
        return
    wanted = dict if is_typeddict(expected) else expected
    try:
        check_type(value, wanted)
    except TypeCheckError as error:
        raise ValueError(f"{path}: field {field!r}: {error}: {_REMEDY}") from None


def _check_lengths(completions: Mapping[str, Any], path: Path) -> None:
    n = len(completions["prompts"])
    for name, judged in completions["conditions"].items():
        if len(judged) != n:
            raise ValueError(f"{path}: field 'conditions.{name}' has {len(judged)} completions for {n} prompts: {_REMEDY}")
    marked = completions.get("tokens", [])
    if len(marked) > n:
        raise ValueError(f"{path}: field 'tokens' has {len(marked)} entries for {n} prompts: {_REMEDY}")
    for index, tokens in enumerate(marked):
        if len(tokens["pieces"]) != len(tokens["steered"]):
            raise ValueError(f"{path}: field 'tokens[{index}]' has unequal numbers of pieces and marks: {_REMEDY}")
