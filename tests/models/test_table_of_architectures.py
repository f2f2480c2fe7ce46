"""The table of architectures in the docs is what the script makes."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_table_in_the_docs_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("architectures", ROOT / "examples" / "architectures.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.table()
    assert made == (ROOT / "docs" / "made" / "architectures.md").read_text(encoding="utf-8")
    assert made.count("| yes | yes | yes |") >= 20 and "**no**" not in made
