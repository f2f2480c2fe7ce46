"""SECURITY.md names every place that starts a process, reaches for the network, runs code or reads a pickle."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_transfer"
PROCESSES = {"subprocess.run", "subprocess.Popen", "subprocess.check_output", "os.system", "os.popen", "os.execv", "os.spawnv"}
NETWORK = {
    "HfApi",
    "OpenAI",
    "SentenceTransformer",
    "from_pretrained",
    "get_hf_file_metadata",
    "hf_hub_download",
    "load_dataset",
    "snapshot_download",
    "socket.socket",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve",
}
CODE = {"eval", "exec", "compile", "importlib.import_module", "__import__", "runpy.run_path"}
PICKLES = {"torch.load", "pickle.load", "pickle.loads", "joblib.load", "dill.load", "numpy.load", "np.load"}
KINDS = {"starts processes": PROCESSES, "network": NETWORK, "runs code": CODE, "reads pickles": PICKLES}


def calls(file: Path) -> Iterator[tuple[str, ast.AST]]:
    """Names that a module calls or hands on, with the nodes."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            yield ast.unparse(node), node


def found() -> dict[str, set[str]]:
    """By kind, the modules that do it."""
    places: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for file in PACKAGE.rglob("*.py"):
        for name, _ in calls(file):
            for kind, names in KINDS.items():
                if name in names or (names is not CODE and name.endswith(tuple(f".{one}" for one in names))):
                    places[kind].add(file.relative_to(PACKAGE).with_suffix("").as_posix())
    return places


def named() -> dict[str, set[str]]:
    """By kind, the modules in the table of SECURITY.md."""
    rows = [
        line.strip("| \n").split(" | ") for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")
    ]
    places: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for kind, modules, *_ in rows:
        if kind in places:
            places[kind] |= {module.strip("` ") for module in modules.split(",")}
    return places


def test_every_process_request_and_reader_of_code_is_in_the_table() -> None:
    assert named() == found()


def test_pickles_are_read_as_tensors_alone() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PICKLES:
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert keywords.get("weights_only") == "True" or keywords.get("allow_pickle") == "False", file


def test_no_command_goes_through_a_shell() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PROCESSES:
                assert all(word.arg != "shell" for word in node.keywords), file
                assert isinstance(node.args[0], ast.List), "a list of arguments, which no shell reads"


def test_nothing_listens_but_the_server() -> None:
    listening = ("HTTPServer", "serve_forever", "create_server", "uvicorn", "run_server")
    files = {file for file in PACKAGE.rglob("*.py") for name, _ in calls(file) if name.endswith(listening)}
    assert files == {PACKAGE / "deployment" / "server.py"}


def test_tests_that_look_at_names_see_them(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("import os\nload: object = datasets.load_dataset\nos.system('x')\n")
    assert {"datasets.load_dataset", "os.system"} <= {name for name, _ in calls(file)}
