"""`interp-transfer chat`: answers side by side, steered and not."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import Json, model_option, numbers
from interp_transfer.cli.output import console, print_json, say


def chat(
    vectors: Annotated[
        list[Path],
        typer.Argument(metavar="VECTOR...", help="Files of vectors, each compared by itself; also .gguf, .npz, .json, .pt."),
    ],
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt; may be repeated. Default: lines of standard input.")
    ] = None,
    model: Annotated[str | None, model_option("Model; default: the one that is stored with the first vector.")] = None,
    mapper: Annotated[Path | None, typer.Option(help="Folder of a mapper that the vectors are moved through first.")] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Hook point of the vectors, for a file that holds several or does not name it."),
    ] = None,
    strength: Annotated[
        str | None, typer.Option(help="Strengths, joined by commas; default: the one that is stored with a vector, or 1.")
    ] = None,
    positions: Annotated[str, typer.Option(help="Tokens at which vectors are added: all, prompt, generated, last.")] = "all",
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Read prompts as texts, not as chats.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Length of answers.")] = 64,
    dtype: Annotated[
        str, typer.Option(help="Dtype of the model: auto (the checkpoint's), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Device of the model; default: a GPU if there is one.")] = None,
    as_json: Json = False,
) -> None:
    """Answer prompts with and without steering, side by side. Each prompt is answered alone."""
    from interp_transfer.studies.answers import steered

    options: dict[str, Any] = {"system": system, "plain": plain, "max_new_tokens": max_new_tokens, "site": site}
    options |= {"positions": positions, "dtype": dtype, "device": device, "strengths": numbers(strength, "--strength")}
    ways = steered(vectors, model, mapper=mapper, **options)
    if as_json:
        asked = prompts or list(_lines())
        answers = ways.answer(asked, progress=False)
        print_json([{"prompt": prompt, "answers": each} for prompt, each in zip(asked, answers, strict=True)])
        return
    out = console()
    for prompt in prompts or _lines():
        [answers] = ways.answer([prompt], progress=False)
        out.print(_table(prompt, answers))


def _lines() -> Iterator[str]:
    """The lines of standard input that are not empty, as they come."""
    if sys.stdin.isatty():
        say("One prompt a line; end with Ctrl-D.", err=True)
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _table(prompt: str, answers: dict[str, str]) -> Any:
    from rich.table import Table

    table = Table(title=prompt, title_justify="left", expand=True, show_lines=True)
    for way in answers:
        table.add_column(way, ratio=1, overflow="fold")
    table.add_row(*(answer.strip() for answer in answers.values()))
    return table
