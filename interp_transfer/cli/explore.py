"""`interp-transfer explore`: steer models by hand, in a browser."""

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from interp_transfer.cli.options import model_option, task_option
from interp_transfer.cli.output import say


def explore(
    source: Annotated[str | None, model_option("Model that vectors come from.")] = None,
    target: Annotated[str | None, model_option("Model that they are moved to; may be left out.")] = None,
    task: Annotated[str | None, task_option("Registered task whose vector is added.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of a finished run: its models, vectors, mapper and task.")] = None,
    vector: Annotated[
        list[Path] | None, typer.Option(help="File of a vector; may be repeated. Also .gguf, .npz, .json, .pt.")
    ] = None,
    source_site: Annotated[
        str | None, typer.Option(help="Where the task's vector is extracted: a hook point, or the number of a block.")
    ] = None,
    target_site: Annotated[str | None, typer.Option(help="Where it is moved to.")] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; default: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    live: Annotated[bool, typer.Option("--live", help="Generate however long a token takes.")] = False,
    dtype: Annotated[
        str, typer.Option(help="Dtype of the models: auto (the checkpoint's), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Device of the models; default: a GPU if there is one.")] = None,
) -> None:
    """Steer a model, or two, by hand, on a page of this machine alone, until Ctrl-C."""
    from interp_transfer.extras import require

    for module in ("fastapi", "uvicorn", "openai"):
        require(module, "server", "the explorer in a browser")
    from interp_transfer.deployment.server import listen, serve
    from interp_transfer.explorer.local import HOST, address, application, new_token
    from interp_transfer.explorer.opening import ExploreOptions, session

    given: dict[str, Any] = {}
    if run is not None:
        given["run"] = run
    if task is not None:
        given["task"] = task
    for file in vector or []:
        if file.stem in given:
            raise ValueError(f"--vector {str(file)!r}: there is another one of this name; rename the file")
        given[file.stem] = file
    if not given:
        raise ValueError("there is nothing to add to the model: give --task, --run or --vector")
    if run is not None and task is not None:
        raise ValueError("--run has its own task: leave out --task")
    with listen(HOST, port) as listening:
        options = ExploreOptions(source_site, target_site, dtype, device, live)
        made = session(source, target, given, options=options)
        token = new_token()
        url = address(listening, token)
        say(f"The explorer is at {url} and ends with Ctrl-C", err=True)
        if browser:
            webbrowser.open(url)
        serve(application(made, token), listening)
