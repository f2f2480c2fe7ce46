"""The command that repeats a run."""

import json
import shlex
from typing import Any

from interp_transfer.reporting.run_folder import ResultJson


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
    task = options.get("task", result["task"])
    if isinstance(task, dict):  # of a file of pairs
        flags = [
            f"--pairs {shlex.quote(task['path'])}",
            f"--judge {shlex.quote(task['judge'])}",
            *(["--chat"] if task["chat"] else []),
            *_flags("system", task["system"]),
            *flags,
        ]
    first = "interp-transfer run" if isinstance(task, dict) else f"interp-transfer run {shlex.quote(task)}"
    lines = [first, *flags, "--out FOLDER"]
    again = "\n\ninterp-transfer run --from result.json --out FOLDER" if result.get("asked") else ""
    return " \\\n    ".join(lines) + again


def _flags(name: str, value: Any) -> list[str]:
    """An option as flags of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, dict):  # settings of the mapper
        return [f"--setting {shlex.quote(f'{key}={json.dumps(setting)}')}" for key, setting in value.items()]
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    text = ",".join(f"{x:g}" for x in value) if isinstance(value, list) else str(value)
    return [f"--{flag} {shlex.quote(text)}"]
