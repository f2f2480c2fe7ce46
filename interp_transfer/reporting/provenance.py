"""Where a run's numbers come from: facts about models, vector and mapper, and the command that repeats the run."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from interp_transfer.plots.style import percent
from interp_transfer.reporting.formats import short
from interp_transfer.reporting.run_folder import ResultJson


def cards(result: ResultJson) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A title and labelled facts for each part of the run."""
    for title, model in (("Source", result.get("source")), ("Target", result["target"])):
        if model:
            yield title, [(key, str(value)) for key, value in model.items()]
    if vector := result.get("vector"):
        yield (
            "Vector",
            [
                ("method", vector["method"]),
                ("taken at", vector["positions"]),
                ("norm on the source", short(vector["norm"])),
                ("norm after the move", f"{short(vector['moved_norm'])} (native {short(vector['native_norm'])})"),
                ("cosine to the native vector", short(vector["cosine_to_native"])),
            ],
        )
    if mapper := result.get("mapper"):
        yield "Mapper", list(_mapper(mapper, result.get("alignment")))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    yield "Run", [("task", result["task"]), ("seed", str(result["seed"])), ("versions", versions)]


def _mapper(mapper: Mapping[str, Any], alignment: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "kind and mode", f"{mapper['kind']}, {mapper['mode']}"
    if "norm" in mapper:
        yield "length of the moved vector", mapper["norm"]
    yield "parameters", f"{mapper['parameters']:,} ({percent(mapper['fraction_of_target'])} of the target model)"
    if "rows" in mapper:
        held_out = f", measured on {mapper['held_out_rows']:,} others" if "held_out_rows" in mapper else ""
        yield "token pairs", f"fitted on {mapper['rows']:,}{held_out}"
    yield "variance left unexplained (FVU)", short(mapper["fvu"])
    yield "cosine to the true activations", short(mapper["cosine"])
    yield "ratio of norms, mapped to true", short(mapper["norm_ratio"])
    if settings := mapper.get("settings"):
        yield "settings", ", ".join(f"{key} {value}" for key, value in settings.items())
    if alignment:
        yield "tokens paired", f"{alignment['strategy']}, {percent(alignment['coverage'])} of them"


def command(result: ResultJson) -> str:
    """The command that repeats the run; empty when there is none, as for models or tasks that were passed as objects.

    Every option of the run becomes a flag. What the run chose by itself, such as sites, replaces an option that was left open.
    """
    source, mapper, target = result.get("source"), result.get("mapper"), result["target"]
    by_object = "options" in result and not result.get("asked")
    if not source or not mapper or by_object:
        return ""
    options: dict[str, Any] = dict(result.get("asked") or {})
    options |= {
        "source": source["name"],
        "target": target["name"],
        "source_site": source.get("site"),
        "target_site": target.get("site"),
        "mapper": mapper["kind"],
        "mode": mapper["mode"],
        "norm": mapper.get("norm"),
        "seed": result["seed"],
    }
    if "moved" in result["conditions"]:
        options["n"] = result["conditions"]["moved"]["intact"]["n"]
    flags = [flag for name, value in options.items() if name != "task" for flag in _flags(name, value)]
    lines = [f"interp-transfer run {shlex.quote(result['task'])}", *flags, "--out FOLDER"]
    again = "\n\ninterp-transfer run --from result.json --out FOLDER" if result.get("asked") else ""
    return " \\\n    ".join(lines) + again


def _flags(name: str, value: Any) -> list[str]:
    """An option as flags of the command line; switches are on unless they are turned off."""
    flag = name.replace("_", "-")
    if isinstance(value, dict):  # settings of the mapper
        return [f"--setting {shlex.quote(f'{key}={json.dumps(setting)}')}" for key, setting in value.items()]
    if value is None or value is True:
        return []
    if value is False:
        return [f"--no-{flag}"]
    text = ",".join(f"{x:g}" for x in value) if isinstance(value, list) else str(value)
    return [f"--{flag} {shlex.quote(text)}"]
