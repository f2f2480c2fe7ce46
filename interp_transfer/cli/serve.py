"""`interp-transfer serve`: a model and its vectors behind OpenAI's API."""

from pathlib import Path
from typing import Annotated

import typer

from interp_transfer.cli.options import model_option
from interp_transfer.cli.output import say


def serve(
    model: Annotated[str, model_option("Known name, hub name or folder of the model.", typer.Argument)],
    vector: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="A vector that requests may name; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in requests; default: MODEL, without its folder.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is of this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="INTERP_TRANSFER_API_KEY", help="Key that every request must have.")
    ] = None,
    positions: Annotated[str, typer.Option(help="Tokens at which vectors are added: all, prompt, generated, last.")] = "all",
    batch_size: Annotated[
        int | None, typer.Option(help="Answers that are computed together; default: 32 in float32, else 1, which is exact.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Dtype of the model: auto (the checkpoint's), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Device of the model; default: a GPU if there is one.")] = None,
) -> None:
    """Answer OpenAI's API by a model, steered as each request asks, until Ctrl-C."""
    from interp_transfer.extras import require

    for module in ("fastapi", "uvicorn", "openai"):
        require(module, "server", "the server")
    from interp_transfer.deployment.server import Served, application, is_local, listen, listening_at
    from interp_transfer.deployment.server import serve as serve_until_stopped
    from interp_transfer.studies.answers import model_and_vectors, stored_strength

    files = _files(vector or [])
    strengths = {one: stored_strength(file) for one, file in files.items()}
    with listen(host, port) as listening:
        known = name or (Path(model).name if Path(model).exists() else model)
        hooked, loaded = model_and_vectors(list(files.values()), model, dtype=dtype, device=device)
        served = Served(known, hooked, {one: loaded[file] for one, file in files.items()}, strengths, positions)
        app = application(served, host=host, api_key=api_key, batch_size=batch_size)
        if not is_local(host):
            who = "with the key" if api_key else "without a key"
            say(f"warning: anyone who can reach {host} can use the model, {who}", err=True)
        say(f"{known} at {listening_at(listening)}, vectors: {', '.join(files) or 'none'}; Ctrl-C ends it", err=True)
        serve_until_stopped(app, listening)


def _files(vectors: list[str]) -> dict[str, str]:
    """The files of vectors that are written NAME=FILE."""
    files: dict[str, str] = {}
    for text in vectors:
        name, equals, file = text.partition("=")
        if not equals or not file or name in files:
            raise ValueError(f"--vector {text!r}: give each name once as NAME=FILE, such as refusal=moved.safetensors")
        files[name] = file
    return files
