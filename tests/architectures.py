"""The script ``examples/architectures.py``, whose tiny models the tests use."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent

_spec = importlib.util.spec_from_file_location("architectures", ROOT / "examples" / "architectures.py")
assert _spec is not None and _spec.loader is not None
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)
