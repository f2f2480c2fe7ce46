"""`explore`: make the explorer of models, a task, vectors or the folder of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import list_tasks
from interp_transfer.explorer.items import ContrastItem, GivenItem, Item
from interp_transfer.explorer.kept import KeptCompletions
from interp_transfer.explorer.live import too_slow
from interp_transfer.explorer.made import Made, in_notebook, mapper_of, model_of, probe_of, task_of, variables, vector_of
from interp_transfer.explorer.session import PROJECTION, Session
from interp_transfer.explorer.state import MOST_TOKENS, State
from interp_transfer.features.probes import Probe
from interp_transfer.features.sae import Sae
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.models.sites import check_site
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.names import misplaced
from interp_transfer.prompts.chats import PromptLike, as_prompt
from interp_transfer.reporting.run_folder import read_result
from interp_transfer.studies.answers import stored_strength
from interp_transfer.studies.inputs import choose_site, find_task, needs_search, open_exactly, open_model
from interp_transfer.studies.options import TaskOptions
from interp_transfer.vectors.exchange.read import read_vector
from interp_transfer.vectors.vector import SteeringVector

EXAMPLES = 40
"""Prompts of a task that are listed."""
FEATURES = 64
"""Features of an SAE that are listed; any other is given as ``sae.feature(k)``."""
NEW_TOKENS = 40
"""Length of completions at the beginning, unless the task's are shorter."""
PROMPTS = (
    "Tell me about your day.",
    "How do I bake bread?",
    "What is the capital of France?",
    "Write a short poem about rain.",
)
"""Examples where there is no task."""


@dataclass(frozen=True)
class ExploreOptions:
    """How the explorer begins.

    Attributes:
        source_site: site of the source, a hook-point name or the number of a block; default: the one that the model's card
            names for the task, or the block after 60% of the depth.
        target_site: the same for the target.
        dtype: dtype of models that are loaded by name: auto (the checkpoint's), float32, bfloat16 or float16.
        device: their device; default: a GPU if there is one.
        live: generate however long a token takes; by default models that are too slow show completions made before.
    """

    source_site: str | None = None
    target_site: str | None = None
    dtype: str = "auto"
    device: str | None = None
    live: bool = False


@dataclass
class _Given:
    """What was given to explore, sorted."""

    task: Made | None = None
    made: dict[tuple[str, ...], Made] = field(default_factory=dict)
    vectors: dict[str, tuple[Any, Path | None]] = field(default_factory=dict)
    mappers: dict[str, Mapper] = field(default_factory=dict)
    saes: dict[str, Sae] = field(default_factory=dict)
    kept: KeptCompletions | None = None
    models: tuple[Any, Any] | None = None
    strength: float = 1.0


def session(
    source: Any = None,
    target: Any = None,
    what: Any = None,
    *,
    prompts: Sequence[PromptLike] | None = None,
    options: ExploreOptions | None = None,
) -> Session:
    """Make the session of an explorer; the arguments are those of ``explore``."""
    how, known = options or ExploreOptions(), variables()
    if what is None and not _is_model(target):
        target, what = None, target
    if what is None and target is None and (_is_run(source) or isinstance(source, SteeringVector) or _is_file(source)):
        source, what = None, source
    given = _sort(what, how, known, (source, target))
    if given.models is not None:
        source, target = source or given.models[0], target or given.models[1]
    if source is None:
        source = _named_model(given)
    loading = TaskOptions(dtype=how.dtype, device=how.device)
    task = None if given.task is None else given.task.value

    def opened(model: Any) -> HookedModel:
        return open_exactly(model, loading) if task is None or given.models is not None else open_model(model, task, loading)

    models = {"source": model_of(opened(source), "source" if target is not None else "model", known)}
    if target is not None:
        models["target"] = model_of(opened(target), "target", known)
    items, probes = _items(given, models, how, known)
    slow = "" if how.live else next(filter(None, (too_slow(made.value) for made in models.values())), "")
    examples = _examples(prompts, task, given.kept)
    chat = getattr(tokenizer_of(models["source"].value), "chat_template", None) is not None
    positions = "all" if task is None else task.positions
    new = NEW_TOKENS if task is None else min(NEW_TOKENS, task.max_new_tokens, MOST_TOKENS)
    state = State(
        example=0 if examples else None,
        chat=chat and task is None,
        item=next(iter(items)),
        strength=given.strength,
        positions=positions if isinstance(positions, str) else "the task's",
        max_new_tokens=new,
        colour="" if slow else PROJECTION,
    )
    return Session(models, items, examples, state, probes, positions, given.task, given.kept, slow)


def _sort(what: Any, how: ExploreOptions, known: Mapping[str, Any], models: tuple[Any, Any]) -> _Given:
    """Tell apart what was given: tasks, files, folders and objects, by themselves or by name in a mapping."""
    given = _Given()
    every = what if isinstance(what, Mapping) else {} if what is None else {_name_of(what): what}
    for name, one in every.items():
        if isinstance(one, Task):
            given.task = task_of(one, known)
        elif _is_file(one):
            model = next((m for m in models if isinstance(m, HookedModel)), None)
            given.vectors[str(name)] = read_vector(one, model, how.source_site), Path(one)
            given.strength = stored_strength(one)
        elif isinstance(one, Path) or (isinstance(one, str) and Path(one).is_dir()):
            _read_run(Path(one).expanduser(), given, known)
        elif isinstance(one, str) and (one in list_tasks() or not Path(one).exists()):
            task = find_task(one, models=[model for model in models if model is not None])
            given.task = task_of(task, known)
        elif isinstance(one, SteeringVector | Probe):
            given.vectors[str(name)] = one, None
        elif isinstance(one, Mapper):
            given.mappers[str(name)] = one
        elif isinstance(one, Sae):
            given.saes[str(name)] = one
        else:
            raise misplaced(
                one,
                "a task, a vector, a probe, an SAE, a mapper or the folder of a run",
                "give one, or a dictionary of them by name; models come first",
            )
    return given


def _read_run(folder: Path, given: _Given, known: Mapping[str, Any]) -> None:
    """The vectors and the mapper of a run, its completions, and its task where the run can be repeated."""
    result = read_result(folder / "result.json")
    given.kept = KeptCompletions.read(folder)
    given.models = result.get("source", {}).get("name"), result["target"]["name"]
    for what, file in (("source", "vector"), ("target", "moved")):
        path = folder / f"{file}.safetensors"
        vector = SteeringVector.load(path)
        name = "vector" if what == "source" else "moved"
        given.made[what, vector.site] = vector_of(vector, name, known, name, path)
        given.strength = stored_strength(path)
    mapper = Mapper.load(folder / "mapper")
    made = mapper_of(mapper, known, "mapper", folder / "mapper")
    assert made is not None
    given.made["mapper", mapper.source.site, mapper.target.site] = made
    asked = result.get("asked")
    if asked is None:
        return
    fields = {name: asked.get(name) for name in ("edition", "data", "chat", "max_new_tokens", "direction")}
    direction = fields.pop("direction")
    how = TaskOptions(**{name: value for name, value in fields.items() if value is not None})
    task = find_task(asked["task"], how, models=(asked["source"], asked["target"]), direction=direction)
    code = None
    if isinstance(asked["task"], Mapping):
        options = "".join(f", {k}={v!r}" for k, v in asked["task"].items() if k not in ("path", "judge", "sha256"))
        code = f"it.Task.from_jsonl({asked['task']['path']!r}, {asked['task']['judge']!r}{options})"
    given.task = task_of(task, known, code)


def _items(
    given: _Given, models: dict[str, Made], how: ExploreOptions, known: Mapping[str, Any]
) -> tuple[dict[str, Item], dict[str, tuple[str, Probe]]]:
    """What can be added, and the probes."""
    items: dict[str, Item] = {}
    probes: dict[str, tuple[str, Probe]] = {}
    if given.task is not None:
        contrast = _contrast(given, models, how)
        items[contrast.name] = contrast
    elif given.made:
        made = {what: one for (what, *_), one in given.made.items() if what in ("source", "target")}
        items["vector of the run"] = GivenItem("vector of the run", made)
    for name, (vector, file) in given.vectors.items():
        probe = isinstance(vector, Probe)
        side = _side_of(vector, models, name)
        made = probe_of(vector, "probe", known, name) if probe else vector_of(vector, "vector", known, name, file)
        if probe:
            probes[name] = side, vector
        moved = _moved(made, side, given.mappers, known)
        for mapper, one in moved.items() if len(moved) > 1 else [("", next(iter(moved.values()), None))]:
            called = f"{name}, moved by {mapper}" if mapper else name
            items[called] = GivenItem(called, {side: made, **({"target": one} if one is not None else {})})
    for name, sae in given.saes.items():
        side = _side_of(sae, models, name)
        found = in_notebook(sae, known, item=name)
        for k in range(min(sae.n_features, FEATURES)):
            vector = sae.feature(k)
            made = (
                vector_of(vector, "feature", {}, name)
                if found is None
                else Made(vector, "feature", lambda s, k=k: f"{s}.feature({k})", (found,))
            )
            items[f"{name}, feature {k}"] = GivenItem(f"{name}, feature {k}", {side: made})
    if not items:
        raise ValueError("there is nothing to add to the model: give a task, a vector, or a dictionary of vectors by name")
    return items, probes


def _contrast(given: _Given, models: dict[str, Made], how: ExploreOptions) -> ContrastItem:
    """The item of the task, with what a run or the user has made of it already."""
    assert given.task is not None
    sites = {}
    for (side, made), named in zip(models.items(), (how.source_site, how.target_site), strict=False):
        run = next((key[1] for key in given.made if key[0] == side), None)
        sites[side] = check_site(made.value, named) if named else run or _usual_site(made.value, given.task.value)
    made = dict(given.made)
    for key in list(made):
        if key[0] == "target":  # a moved vector is of two sites
            made["target", sites["source"], key[1]] = made.pop(key)
    for mapper in given.mappers.values():
        written = mapper_of(mapper, {**variables()}, "mapper")
        if written is not None:
            made["mapper", mapper.source.site, mapper.target.site] = written
    return ContrastItem(given.task, models, sites, made)


def _usual_site(model: HookedModel, task: Task) -> str:
    """The site that the card of a known model names for a task, or the input of the block after 60% of the depth."""
    if not needs_search(model, task, None):
        return choose_site(model, task, progress=False).name
    return check_site(model, round(0.6 * int(model.cfg.n_layers)))


def _moved(made: Made, side: str, mappers: Mapping[str, Mapper], known: Mapping[str, Any]) -> dict[str, Made]:
    """A vector of the source moved by each mapper of its space."""
    vector, moved = made.value, {}
    for name, mapper in mappers.items():
        here = mapper.source
        if side == "source" and (here.model.fingerprint, here.site) == (vector.model.fingerprint, vector.site):
            one, written = mapper.transfer(vector), mapper_of(mapper, known, name)
            moved[name] = (
                vector_of(one, "moved", {}, name)
                if written is None
                else Made(one, "moved", lambda m, v: f"{m}.transfer({v})", (written, made))
            )
    return moved


def _side_of(vector: Any, models: dict[str, Made], name: str) -> str:
    """Which model a vector, probe or SAE belongs to.

    Raises:
        ValueError: if it is of neither.
    """
    for side, made in models.items():
        if identity(made.value).fingerprint == vector.model.fingerprint:
            return side
    there = " and ".join(str(identity(made.value)) for made in models.values())
    raise ValueError(
        f"{name!r} is of {vector.model}, and the explorer has {there}: load that model, move it with mapper.transfer(vector), "
        "or rebind it on purpose with vector.for_model(model)"
    )


def _named_model(given: _Given) -> str:
    """The name of the model that the first vector is of."""
    for vector, _ in given.vectors.values():
        return vector.model.name
    raise ValueError("there is no model: give a model, or its name, as the first argument")


def _examples(prompts: Sequence[PromptLike] | None, task: Task | None, kept: KeptCompletions | None) -> list[Any]:
    if prompts is not None:
        return [as_prompt(prompt) for prompt in prompts][:EXAMPLES]
    if task is not None:
        split = next((split for split in ("test", "validation") if task.prompts(split)), "train")  # few pairs fill not all
        clean = task.clean(split)[: EXAMPLES // 4]
        return [*task.prompts(split)[: EXAMPLES - len(clean)], *clean]
    return [*kept.prompts] if kept is not None else list(PROMPTS)


def _name_of(what: Any) -> str:
    return Path(what).stem if isinstance(what, str | Path) else type(what).__name__


def _is_model(what: Any) -> bool:
    """Whether an argument is a model or the name of one."""
    if isinstance(what, str):
        return not (what in list_tasks() or _is_run(what) or _is_file(what))
    if isinstance(what, Path):
        return not (_is_run(what) or _is_file(what))
    return what is None or isinstance(what, HookedModel) or hasattr(what, "config")


def _is_run(what: Any) -> bool:
    return isinstance(what, str | Path) and (Path(what).expanduser() / "result.json").is_file()


def _is_file(what: Any) -> bool:
    return isinstance(what, str | Path) and Path(what).suffix in (".safetensors", ".gguf", ".npz", ".json", ".pt")
