"""Options that several commands share, and flags made from a dataclass of options."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results; must be missing or empty.")]
Edition = Annotated[str | None, typer.Option(help="Plugin that registers the task; default: the first that knows its name.")]


def model_option(text: str, kind: Callable[..., Any] = typer.Option) -> Any:
    """An option, or an argument, that names a model; an unknown one is refused before the command imports torch."""
    return kind(callback=_existing, help=text, autocompletion=complete_model)


def task_option(text: str, kind: Callable[..., Any] = typer.Option, **more: Any) -> Any:
    """An option, or an argument, that names a task; likewise."""
    return kind(callback=_registered, help=text, autocompletion=_tasks, **more)


def complete_model(incomplete: str) -> list[str]:
    """Names of known models that begin so, for the shell's completion."""
    from interp_transfer.plugins import known_models

    return [name for name in known_models() if name.startswith(incomplete)]


def _tasks(incomplete: str) -> list[str]:
    from interp_transfer.evaluation.tasks import list_tasks

    return [name for name in list_tasks() if name.startswith(incomplete)]


def _registered(name: str | None) -> str | None:
    from interp_transfer.evaluation.tasks import check_registered

    if name is not None:
        check_registered(name)
    return name


def _existing(name: str | None) -> str | None:
    from interp_transfer.models.locate import locate

    if name is not None:
        locate(name)
    return name


TaskName = Annotated[str | None, task_option("Name of a registered task; or give --pairs.", typer.Argument, metavar="TASK")]
ModelName = Annotated[str, model_option("Known name, hub name or folder of the model that is steered.")]
Source = Annotated[str, model_option("Known name, hub name or folder of the source model.")]
Target = Annotated[str, model_option("Known name, hub name or folder of the target model.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]


@dataclass(frozen=True)
class PairsOptions:
    """A file of contrast pairs in place of a task's name.

    Attributes:
        pairs: JSONL of contrast pairs (positive, negative), instead of a task's name.
        judge: judge of the pairs: no_refusal, refusal, contains:TEXT, lacks:TEXT, trait:A/B, classifier:FOLDER#LABEL or
            module:function.
        system: system prompt of all pairs, which are read as chats.
    """

    pairs: Path | None = None
    judge: str | None = None
    system: str | None = None


def named_task(name: str | None, options: dict[str, Any]) -> str | dict[str, Any]:
    """The name of a task, or the arguments of ``Task.from_jsonl``. Options that apply to a named task alone are refused.

    Args:
        name: of a task.
        options: of the command. Those of `PairsOptions` are removed; ``chat`` is set back to its default with pairs.

    Raises:
        ValueError: for both a name and a file, neither, or pairs without a judge.
    """
    pairs, judge, system = (options.pop(f.name) for f in fields(PairsOptions))
    if (name is None) == (pairs is None):
        raise ValueError("name a task, or give --pairs FILE.jsonl with --judge NAME")
    if (pairs is None) != (judge is None):
        raise ValueError("--pairs and --judge belong together: give both, or the name of a task")
    if name is not None:
        if system is not None:
            raise ValueError(f"--system goes with --pairs: the task {name!r} has its own prompts")
        return name
    if options.get("data") is not None:
        raise ValueError("--data is for a named task of the paper: with --pairs the data are the pairs, leave it out")
    task = {"path": str(pairs), "judge": judge, "chat": options["chat"], "system": system}
    options["chat"] = False
    return task


def with_flags(
    *kinds: type, where_given: Iterable[str] = (), show_default: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of some dataclasses, with its default and its line of documentation.

    The command receives them as ``options``, a dictionary of the fields, with those of ``where_given`` only where they are
    given. A mapping is a flag NAME=VALUE that may be repeated. Without ``show_default`` the help shows no defaults.
    """
    every = [f for kind in kinds for f in fields(kind)]
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    documentation = {name: text for kind in kinds for name, text in _documentation(kind).items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def wrapped(**values: Any) -> None:
            source = values.pop("context").get_parameter_source
            left = [name for name in where_given if source(name).name == "DEFAULT"]
            chosen = {f.name: _parse(f, values.pop(f.name)) for f in every}
            command(**values, options={name: value for name, value in chosen.items() if name not in left})

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
        flags = [_parameter(f, hints[f.name], documentation[f.name], show_default) for f in every]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [context, *own[:-2], *flags, *own[-2:]]]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        return wrapped

    return decorate


def _parameter(f: Field, hint: Any, text: str, show_default: bool) -> inspect.Parameter:
    default, names = (None if f.default is MISSING else f.default), []
    if get_origin(hint) is Mapping:
        hint, names, text = list[str] | None, ["--setting"], f"{text} NAME=VALUE; may be repeated."
    annotation = Annotated[hint, typer.Option(*names, help=text, show_default=show_default)]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parse(f: Field, value: Any) -> Any:
    return settings(value or []) if f.default is MISSING else value


def _documentation(options: type) -> dict[str, str]:
    """The lines of the Attributes in the docstrings of a dataclass and of those it derives from, by name, as sentences."""
    lines, name = {}, ""
    for one in filter(is_dataclass, options.__mro__):
        for line in (inspect.getdoc(one) or "").partition("Attributes:\n")[2].splitlines():
            if line.startswith("    ") and line[4] != " ":
                name, _, line = line.strip().partition(": ")
            lines[name] = f"{lines.get(name, '')} {line.strip()}".strip()
    return {name: f"{text[0].upper()}{text[1:]}" for name, text in lines.items() if text}


def parts(text: str | None) -> list[str] | None:
    """The parts of a text that is joined by commas; None for None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str | None, option: str) -> list[float] | None:
    """Numbers that are joined by commas; None for None.

    Raises:
        ValueError: for a part that is no number, naming the option.
    """
    values = []
    for part in parts(text) or []:
        try:
            values.append(float(part))
        except ValueError:
            raise ValueError(f"{option}: {part!r} is no number; give some joined by commas, such as 0.5,1,2") from None
    return None if text is None else values


def settings(pairs: list[str]) -> dict[str, Any]:
    """Settings that are written NAME=VALUE; a value that is no JSON is text."""
    values: dict[str, Any] = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not name or not equals or name in values:
            raise ValueError(f"--setting {text!r}: give each once as NAME=VALUE, such as width=2048")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values
