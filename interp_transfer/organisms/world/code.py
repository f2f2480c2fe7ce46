"""Code snippets: small Python functions, judged by running them.

Validity is behaviour: the snippet parses, defines a function of the asked name, and returns what the reference returns
on sample arguments. Model output is only run if every syntax node is on a list that cannot loop, import, or reach
attributes other than a few methods, so the judge is safe on anything that a model may write.
"""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.organisms.world.question import Question, Ruling
from interp_transfer.prompts.contrast import Split


@dataclass(frozen=True)
class Program:
    """A function to write.

    Attributes:
        purpose: what it does.
        parameters: as they stand in its signature.
        expression: what it returns.
        samples: arguments of the calls that an answer is judged by.
        names: to give it.
    """

    purpose: str
    parameters: str
    expression: str
    samples: tuple[tuple[Any, ...], ...]
    names: list[str]

    def all_names(self) -> list[str]:
        """Its names, as they are and decorated."""
        return [pattern.format(name) for name in self.names for pattern in ("{}", "my_{}", "{}_it")]


def _programs() -> tuple[Program, ...]:
    data = tomllib.loads(Path(__file__).with_name("programs.toml").read_text("utf-8"))
    samples = {name: tuple(map(tuple, several)) for name, several in data["samples"].items()}
    return tuple(Program(**{**program, "samples": samples[program["samples"]]}) for program in data["programs"])


PROGRAMS = _programs()


@dataclass(frozen=True)
class Code:
    """The family of code snippets."""

    name: str = "code"
    held_out_phrasings: int = 1

    @property
    def held_out_subjects(self) -> dict[str, Split]:
        """One program each for test and validation."""
        return {PROGRAMS[-1].purpose: "test", PROGRAMS[-2].purpose: "validation"}

    def questions(self) -> list[Question]:
        """Every program x name x wording."""
        return [
            Question(self.name, program.purpose, name, index, text, answer)
            for program in PROGRAMS
            for name in program.all_names()
            for index, (text, answer) in enumerate(_wordings(program, name))
        ]

    def judge(self, question: Question, completion: str) -> Ruling:
        """Valid: Python that defines the asked function, which agrees with the reference on all samples."""
        program = next(p for p in PROGRAMS if p.purpose == question.subject)
        try:
            tree = ast.parse(completion)
        except (SyntaxError, ValueError) as error:
            return Ruling(False, f"does not parse: {error}")
        if len(tree.body) != 1:
            return Ruling(False, f"one definition was asked for, found {len(tree.body)} statements")
        if (refused := _refuse(tree)) is not None:
            return Ruling(False, f"not run, because it uses {refused}")
        function = _run(completion).get(question.aspect)
        if not callable(function):
            return Ruling(False, f"defines no function {question.aspect!r}")
        reference = eval(f"lambda {program.parameters}: {program.expression}", {"__builtins__": _BUILTINS})
        for sample in program.samples:
            try:
                got, wanted = function(*sample), reference(*sample)
            except Exception as error:  # whatever the snippet raises is its own fault
                return Ruling(False, f"{question.aspect}{sample} raises {type(error).__name__}")
            if type(got) is not type(wanted) or got != wanted:
                return Ruling(False, f"{question.aspect}{sample} is not {wanted!r}")
        return Ruling(True, "a valid snippet")


def _wordings(program: Program, name: str) -> Iterator[tuple[str, str]]:
    does, parameters, expression = program.purpose, program.parameters, program.expression
    define = f"def {name}({parameters}):\n    "
    yield f"Write a Python function {name} that {does}.", f"{define}return {expression}"
    yield f"In one line of Python: {name}, which {does}.", f"{name} = lambda {parameters}: {expression}"
    yield f"Python with a comment, please: {name} {does}.", f"# {name} {does}\n{define}return {expression}"
    yield f"Code {name} in Python. It {does}.", f"{define}result = {expression}\n    return result"
    yield f"I need {name}, a bracketed lambda that {does}.", f"{name} = (lambda {parameters}: {expression})"


_BUILTINS = {"max": max, "min": min, "abs": abs, "len": len, "sorted": sorted, "sum": sum, "bool": bool}
_TYPES = {kind.__name__: kind for kind in (int, float, str, list)}  # for annotations; calling them is refused
_METHODS = {"upper", "lower", "copy"}
_NODES = (
    *(ast.Module, ast.FunctionDef, ast.Lambda, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.If, ast.IfExp),
    *(ast.Expr, ast.Name, ast.Load, ast.Store, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.Call, ast.Attribute, ast.Subscript, ast.Slice, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def _refuse(tree: ast.AST) -> str | None:
    """What in the tree must not be run, or None. No loops, no recursion, no imports, nothing that can grow large."""
    products = 0
    for node in ast.walk(tree):
        kind = type(node).__name__
        if not isinstance(node, _NODES) or isinstance(node, ast.Pow | ast.LShift):
            return kind
        if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
            return f"the attribute {node.attr!r}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in _BUILTINS:
            return f"a call of {node.func.id!r}"
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
            return "a call of an expression"
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > 100:
            return f"the number {node.value}"
        if isinstance(node, ast.FunctionDef) and (node.decorator_list or node.args.defaults or node.args.kw_defaults):
            return "decorators or defaults"
        if isinstance(node, ast.Name | ast.arg) and isinstance(getattr(node, "ctx", ast.Store()), ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.arg
            if name in _BUILTINS:  # could turn a harmless call into recursion
                return f"the name {name!r} for something else"
        if isinstance(node, ast.FunctionDef) and node.name in _BUILTINS:
            return f"the name {node.name!r} for something else"
        products += isinstance(node, ast.Mult)
    return "too many products" if products > 3 else None


def _run(source: str) -> dict[str, Any]:
    """The names that a refused-nothing snippet defines."""
    names: dict[str, Any] = {"__builtins__": _BUILTINS | _TYPES}
    try:
        exec(compile(source, "<completion>", "exec"), names)  # only after `_refuse`
    except Exception:  # a snippet that fails defines nothing
        return {}
    return names
