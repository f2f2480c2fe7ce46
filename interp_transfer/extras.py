"""Optional dependencies: import one, or name the extra that installs it."""

import importlib
from typing import Any


class MissingExtra(ImportError, ValueError):
    """An optional dependency is not installed. The command line prints it on one line, like every `ValueError`."""


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: its dotted name.
        extra: the extra of this package that installs it.
        purpose: what needs the module, for the error.

    Raises:
        MissingExtra: if the module is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(
            f"{purpose} needs {package}, which is not installed: pip install 'interp-transfer[{extra}]'"
        ) from error
