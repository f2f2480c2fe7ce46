"""Judges by name.

``no_refusal`` and ``refusal`` read sentences (``judges.refusal``), ``no_refusal_phrase`` and ``refusal_phrase`` look for the
phrases of Arditi et al.; ``contains:TEXT`` and ``lacks:TEXT`` look for a text;
``trait:WANTED/UNWANTED`` counts words of two traits; ``classifier:FOLDER#LABEL`` is a model for sequence classification;
``module:function`` is a function of one prompt and one completion. Plugins register others (``plugins.Plugin.judges``).
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interp_transfer.evaluation.judges.refusal import REFUSAL_PHRASES, RefusalJudge
from interp_transfer.evaluation.judges.rules import Judge, OneByOne, SubstringJudge
from interp_transfer.names import did_you_mean
from interp_transfer.plugins import plugins


def _substring(absent: bool) -> Callable[[str], Judge]:
    return lambda text: SubstringJudge((text,), absent=absent)


def _trait(names: str) -> Judge:
    from interp_transfer.evaluation.judges.words import trait_judge

    return trait_judge(names)


def _classifier(argument: str) -> Judge:
    from interp_transfer.evaluation.judges.classifier import classifier_judge

    return classifier_judge(argument)


_PLAIN: Mapping[str, Judge] = MappingProxyType(
    {
        "no_refusal": RefusalJudge(),
        "refusal": RefusalJudge(refused=True),
        "no_refusal_phrase": SubstringJudge(REFUSAL_PHRASES, ignore_case=True),
        "refusal_phrase": SubstringJudge(REFUSAL_PHRASES, absent=False, ignore_case=True),
    }
)
_WITH_ARGUMENT: Mapping[str, tuple[str, Callable[[str], Judge]]] = MappingProxyType(
    {
        "contains": ("TEXT", _substring(absent=False)),
        "lacks": ("TEXT", _substring(absent=True)),
        "trait": ("WANTED/UNWANTED", _trait),
        "classifier": ("FOLDER#LABEL", _classifier),
    }
)


def load(name: str) -> Judge:
    """Return the judge with a name.

    Returns:
        ``judge(prompts, completions)``, which returns a `Verdict` on each completion.

    Raises:
        ValueError: for an unknown name, a missing argument, or a function that cannot be imported.
    """
    kind, colon, argument = name.partition(":")
    if not colon and kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _WITH_ARGUMENT:
        form, make = _WITH_ARGUMENT[kind]
        if not argument:
            raise ValueError(f"the judge {kind!r} needs an argument: write {kind}:{form}")
        return make(argument)
    added = {known: make for plugin in reversed([*plugins().values()]) for known, make in plugin.judges.items()}
    if kind in added:
        return added[kind](argument) if argument else added[kind]()
    if argument.isidentifier():
        return OneByOne(_function(kind, argument), name)
    names = [*_PLAIN, *(f"{kind}:{form}" for kind, (form, _) in _WITH_ARGUMENT.items()), *added, "module:function"]
    raise ValueError(f"unknown judge {name!r}: {did_you_mean(name, names)}choose one of {', '.join(names)}")


def as_judge(judge: Any, task: str) -> Judge:
    """Return a judge for a name, for a function of one prompt and one completion, or for a judge.

    A judge is recognised by its parameters, ``prompts`` and ``completions``.

    Raises:
        ValueError: for an unknown name, or something that cannot be called.
    """
    if isinstance(judge, str):
        return load(judge)
    if not callable(judge):
        raise ValueError(f"the judge of {task!r} is {judge!r}: give the name of a judge, or a function (prompt, completion)")
    function: Any = judge
    if list(inspect.signature(judge).parameters)[:2] == ["prompts", "completions"]:
        return function
    return OneByOne(function, task)


def name_of(judge: Any) -> str:
    """Return the name of a judge in reports."""
    return judge if isinstance(judge, str) else getattr(judge, "__name__", type(judge).__name__)


def _function(module: str, name: str) -> Callable[..., Any]:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the judge {module}:{name} cannot be imported: {error}") from error
