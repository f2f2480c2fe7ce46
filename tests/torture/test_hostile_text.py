"""Hostile text in every output: it shows as text, and does nothing."""

import csv
import html
import json
import re
import time
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.io
import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from interp_transfer.cli.main import main
from interp_transfer.cli.output import finish, print_json, say
from interp_transfer.escape import one_line, without_surrogates
from interp_transfer.io import read_tensors, write_json, write_tensors
from interp_transfer.mapping.fit import fit
from interp_transfer.models.identity import Space
from interp_transfer.paper.experiment import Case, experiments
from interp_transfer.paper.markdown import prose, tables
from interp_transfer.paper.page import reproduce
from interp_transfer.plots.style import label
from interp_transfer.progress import progress_bar, write_line
from interp_transfer.reporting.csv_export import ESCAPED, write_csv
from interp_transfer.reporting.feature_page import write_features
from interp_transfer.reporting.feature_view import feature_view, tokens_view
from interp_transfer.reporting.noise_page import write_noise
from interp_transfer.reporting.png_export import png
from interp_transfer.reporting.render import render
from interp_transfer.reporting.report import write_report
from interp_transfer.reporting.run_folder import read_run
from interp_transfer.reporting.sweep_page import write_sweep
from interp_transfer.reporting.table import features_table, result_table, sweep_table, switch_table
from interp_transfer.reporting.two_runs_page import write_two_runs
from interp_transfer.search.sweep_result import Sweep
from interp_transfer.studies.switch_page import write_switch
from interp_transfer.vectors.vector import SteeringVector
from tests.mapping.test_fit import paired, planted
from tests.torture import outputs
from tests.torture.hostile import ALL, LONG, TEXTS, TYPED, hidden_from, raw_controls, squeezed, text_of
from tests.torture.outputs import NAMES

SECONDS = 10
"""That a page may take to load."""
NARROW = 400
"""Width of a window, in CSS pixels, in which a page does not scroll sideways."""


def features_page(folder: Path) -> Path:
    facts = {0: {**{text: text for text in TEXTS.values()}, "long": LONG}}
    return write_features(folder, ALL, [outputs.card(0)], {0: outputs.card(1)}, facts, NAMES)


def two_runs_page(folder: Path) -> Path:
    return write_two_runs(outputs.run_folder(folder / "one"), outputs.run_folder(folder / "<b>other", also="!"))


PAGES: dict[str, Callable[[Path], Path]] = {
    "report": lambda folder: write_report(outputs.run_folder(folder)),
    "two runs": two_runs_page,
    "features": features_page,
    "sweep": lambda folder: write_sweep(outputs.sweep(), folder),
    "switch": lambda folder: write_switch(outputs.switch(), folder),
    "noise": lambda folder: write_noise({"removes": outputs.doses(), "induces": outputs.doses()}, folder),
}
STORED = ("report", "two runs")
"""Pages of files."""


QUICK = ("report", "features")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in PAGES])
def test_pages(name: str, tmp_path: Path, visit: Callable[..., Any]) -> None:
    path = PAGES[name](tmp_path)
    began = time.monotonic()
    page = visit(path.as_uri(), viewport={"width": NARROW, "height": 800})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert time.monotonic() - began < SECONDS
    assert width <= NARROW
    assert "owned" not in (page.title().split("end-of")[0], page.url)
    text = text_of(page)
    assert hidden_from(text, stored=name in STORED) == []
    assert raw_controls(text) == [] and ("beginning-of-long" in text or name == "noise")
    [policy] = [tag.get_attribute("content") for tag in page.locator("meta[http-equiv=Content-Security-Policy]").all()]
    scripts = path.read_text(encoding="utf-8").count("<script>")  # those that run, not those that hold data
    scripts += 'id="library"' in path.read_text(encoding="utf-8")  # it runs when it is unpacked
    assert scripts and re.fullmatch(rf"default-src 'none';.*script-src( 'sha256-[\w+/=]+'){{{scripts}}}", policy)
    assert page.locator("img").count() == 0
    plain = visit(path.as_uri(), color_scheme="dark", java_script_enabled=False)
    assert plain.locator("img").count() == 0 and raw_controls(text_of(plain)) == []
    assert "need scripts" in plain.locator("noscript").inner_text()


@pytest.mark.slow
def test_views_in_notebooks_and_figures(tmp_path: Path, visit: Callable[..., Any]) -> None:
    figures = outputs.figures()
    rows = [(text, "1, 2, 3", [text, text]) for text in TEXTS.values()]
    views = {
        "result": outputs.result()._repr_html_(),
        "switch": outputs.switch()._repr_html_(),
        "sweep": outputs.sweep()._repr_html_(),
        "feature": feature_view(outputs.card(0), outputs.card(1))._repr_html_(),
        "explorer": render("explorer.html.j2", error=None, rows=rows, strength=1.0),
        "error": render("explorer.html.j2", error=ALL),
        "tokens": tokens_view(outputs.card(0)).data,
    }
    for name, figure in figures.items():
        views[name] = plotly.io.to_html(figure, div_id=f"plot-{name}", include_plotlyjs=False, full_html=False)
    parts = "".join(f'<section id="view-{name}">{view}</section>' for name, view in views.items())
    library = plotly.offline.get_plotlyjs()
    path = tmp_path / "views.html"
    head = f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><script>{library}</script>"
    path.write_text(head + parts, "utf-8")
    page = visit(path.as_uri())
    page.wait_for_selector("#view-tokens >> text=end-of-00")
    for name in ("feature", "explorer", "error", "tokens"):
        assert hidden_from(page.inner_text(f"#view-{name}").replace("\u00a0", " ")) == [], name
    for name in ("result", "switch", "sweep"):
        cut = page.inner_text(f"#view-{name}")
        assert hidden_from(cut, stored=True, longest=20) == [], name
        assert raw_controls(cut) == []
    wanted = [squeezed(html.unescape(label(text))) for text in TEXTS.values()]
    for name in ("conditions", "effect", "strength"):
        there = squeezed("".join(page.locator(f"#plot-{name} svg text").all_text_contents()))
        assert [text for text in wanted if text not in there] == [], name
    for name, figure in figures.items():
        seen = re.sub(r'"legendgroup":"(?:[^"\\]|\\.)*"', "", str(figure.to_json()))  # it is not shown
        assert "$" not in seen, f"{name}: MathJax would read a formula"
    lines: Any = figures["effect"].data
    line = next(k for k, trace in enumerate(lines) if trace.name == label(TEXTS["plotly"]))
    page.evaluate("([id, k]) => Plotly.Fx.hover(id, [{curveNumber: k, pointNumber: 0}])", ["plot-effect", line])
    assert squeezed(html.unescape(label(TEXTS["plotly"]))) in squeezed(page.locator("#plot-effect .hoverlayer").text_content())


@pytest.mark.slow
@pytest.mark.usefixtures("browser")  # it skips where there is none
def test_a_figure_as_png() -> None:
    assert png(outputs.figures()["conditions"], ALL, LONG).startswith(b"\x89PNG")


TABLES = {
    "result": lambda: result_table(outputs.result()),
    "sweep": lambda: sweep_table(outputs.sweep()),
    "switch": lambda: switch_table(outputs.switch([*TEXTS.values()]).to_dict()),
    "features": lambda: features_table(features()),
}


def features() -> dict[str, Any]:
    judged = outputs.condition("").to_dict()
    sides = {"source": {text: judged for text in TEXTS.values()}, "target": {}}
    return {"source": {"name": ALL}, "target": {"name": ALL}, "n": 3, "directions": {text: sides for text in ("a", ALL)}}


@pytest.mark.parametrize(("name", "colours"), [("result", False), *((name, True) for name in TABLES)])
def test_tables_in_a_terminal(
    name: str, colours: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if colours:
        monkeypatch.setenv("FORCE_COLOR", "1")
    finish(False, {}, TABLES[name](), [*TEXTS.values()], Path(f"folder/{TEXTS['title']}"), wrap=False)
    out = capsys.readouterr().out
    assert hidden_from(out) == []
    assert raw_controls(re.sub(r"\x1b\[[0-9;]*m", "", out) if colours else out) == []
    assert "\x1b[31m" not in out, "the red of a text"


def test_lines_bars_and_json_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for text in TEXTS.values():
        say(text)
        say(text, err=True)
        write_line(text)
        with progress_bar(text, True, total=1, delay=0, leave=True, ncols=300) as bar:
            bar.update()
    printed = capsys.readouterr()
    assert hidden_from(printed.out) == hidden_from(printed.err) == []
    assert raw_controls(printed.out) == raw_controls(printed.err.replace("\r", "")) == []
    print_json({text: [text] for text in NAMES})
    out = capsys.readouterr().out
    assert raw_controls(out) == [] and json.loads(out) == {text: [text] for text in NAMES}


REFUSED = (
    ("models", "show", "{}"),
    ("report", "{}"),
    ("report", "a", "--against", "{}"),
    ("run", "{}"),
    ("run", "--pairs", "{}", "--judge", "lacks:a", "--source", "{}", "--target", "b"),
    ("extract", "--pairs", "{}", "--judge", "{}", "--model", "{}"),
    ("chat", "{}", "--prompt", "{}"),
    ("transfer", "{}", "--mapper", "{}"),
    ("judge", "{}", "--with", "{}"),
    ("sweep", "{}", "--model", "{}"),
    ("features", "{}"),
    ("reproduce", "{}"),
    ("{}",),
    ("run", "--{}", "a"),
)


@pytest.mark.parametrize("argv", REFUSED, ids=" ".join)
def test_errors_in_a_terminal(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in TYPED.items():
        assert main([part.replace("{}", text) for part in argv]) == 2, name
        out, err = capsys.readouterr()
        assert out == "" and raw_controls(err) == [], name
        assert err.startswith("error: ") and err.count("\n") == 1, name


def test_files_of_hostile_names_and_content_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, text in enumerate(TYPED.values()):
        name = without_surrogates(text).replace("/", "_").replace("\0", "")
        folder = tmp_path / f"{k} {name[:60]}\udc80"  # a byte that is not UTF-8
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"schema": text, text: text}))
        (folder / "pairs.jsonl").write_text(json.dumps({text: text}) + "\n")
        (folder / "v.safetensors").write_text(text, "utf-8", errors="replace")
        for argv in (
            ("report", folder),
            ("judge", folder, "--with", "repetition"),
            ("extract", "--pairs", folder / "pairs.jsonl", "--model", "tiny", "--site", "3"),
            ("chat", folder / "v.safetensors", "--prompt", text),
        ):
            assert main([str(part) for part in argv]) == 2
            out, err = capsys.readouterr()
            assert (out, raw_controls(err), err.count("\n")) == ("", [], 1), argv


def test_warnings_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    for text in TEXTS.values():
        line = warnings.formatwarning(UserWarning(text), UserWarning, "file.py", 1)
        assert line == f"warning: {one_line(text)}\n" and raw_controls(line) == []
    capsys.readouterr()


def test_reprs() -> None:
    card, vector = outputs.card(0), SteeringVector(torch.ones(3), ALL, outputs.MODEL, (), ALL, ALL)
    for what in (outputs.result(), outputs.sweep(), outputs.switch(), outputs.doses(), vector, mapper(), feature_view(card)):
        assert raw_controls(repr(what)) == [], type(what)


def mapper() -> Any:
    fitted = fit(paired(*planted(200)[:2]), "affine")
    spaces = {side: Space(outputs.MODEL, ALL, getattr(fitted, side).d) for side in ("source", "target")}
    fitted.source, fitted.target = spaces["source"], spaces["target"]
    fitted.card = replace(fitted.card, kind=ALL, alignment=ALL, settings={text: text for text in TEXTS.values()})
    return fitted


def test_json_keeps_every_text_and_a_run_is_not_lost(tmp_path: Path) -> None:
    write_json(tmp_path / "texts.json", {text: [text] for text in NAMES})
    assert json.loads((tmp_path / "texts.json").read_text("utf-8")) == json.loads(json.dumps({text: [text] for text in NAMES}))
    result = outputs.result()
    tokens = [{"pieces": NAMES, "steered": [True] * len(NAMES), "generated_steered": True}]
    run = read_run(result.save(tmp_path / "run", tokens))
    assert len(run.result["conditions"]) == len(NAMES) + 1
    assert write_report(tmp_path / "run").is_file()
    sweep = outputs.sweep()
    sweep.save(tmp_path)
    assert Sweep.load(tmp_path).to_frame().equals(sweep.to_frame())
    vector = SteeringVector(torch.ones(3), TEXTS["surrogates"], outputs.MODEL, (), ALL, ALL, tuple(TEXTS.values()))
    vector.save(tmp_path / "v.safetensors", note=ALL)
    assert SteeringVector.load(tmp_path / "v.safetensors").history == tuple(map(without_surrogates, vector.history))
    write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(1)}, TEXTS)
    assert set(read_tensors(tmp_path / "t.safetensors")[1]) == set(TEXTS)


def test_no_cell_of_a_csv_is_a_formula_and_each_text_comes_back(tmp_path: Path) -> None:
    folder = outputs.run_folder(tmp_path / "run", [*TEXTS.values()])
    write_csv(folder)
    for path in folder.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as lines:
            cells = {cell for row in csv.reader(lines) for cell in row if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)}
        assert not [cell for cell in cells if begins_formula(cell)], path.name
    with (folder / "completions.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["condition"] == "moved"]
    said = read_run(folder).completions
    for row, prompt, moved in zip(rows, said["prompts"], said["conditions"]["moved"], strict=True):
        for cell, text in ((row["prompt"], prompt), (row["completion"], moved["completion"]), (row["reason"], moved["reason"])):
            assert (cell[1:] if ESCAPED.match(cell) else cell) == text


def begins_formula(cell: str) -> bool:
    """Whether the first character that a table program may not skip begins a formula."""
    skipped = ("Cc", "Cf", "Zs", "Zl", "Zp")
    first = next((char for char in cell if unicodedata.category(char) not in skipped), "")
    return first in tuple("=+-@\uff1d\uff0b\uff0d\uff20") or cell[:1] in tuple("\t\r\n")


READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def structure(text: str) -> list[str]:
    """The kinds of all parts of a page of Markdown, without what texts of one kind are joined of."""
    kinds = []
    for token in READER.parse(text):
        kinds.append(token.type)
        inside = [child.type for child in token.children or () if child.type != "text"]
        kinds += [*inside, *[str(child.attrs) for child in token.children or () if child.type.startswith(("link", "image"))]]
    return kinds


def shown_by(text: str) -> str:
    return "".join(child.content for token in READER.parse(text) for child in token.children or ())


def test_pages_of_markdown(tmp_path: Path) -> None:
    real = experiments()["fine-tunes"]

    def page(names: list[str]) -> str:
        cases = tuple(Case(name, {}, name, name, {"organisms": name}) for name in names)
        return reproduce([replace(real, cases=cases)], tmp_path, measure=False, progress=False).page.read_text("utf-8")

    def table(names: list[str]) -> str:
        return "\n\n".join(tables([({"column": name, "b": 0.5}, {"case": name}, {"last": name}) for name in names]))

    def sentences(names: list[str]) -> str:
        return "\n".join(f"- {prose(name.replace('`', ''))}." for name in names)

    harmless = [f"harmless {k}" for k in range(len(TEXTS))]
    for write in (page, table, sentences):
        text = write(list(TEXTS.values()))
        assert structure(text) == structure(write(harmless)), write.__name__
        assert raw_controls(text) == []
        if write is not sentences:
            assert hidden_from(shown_by(text)) == []
    assert structure(table([LONG])) == structure(table(["harmless"]))


def test_the_card_of_a_mapper(tmp_path: Path) -> None:
    hostile, plain = mapper(), mapper()
    model = replace(outputs.MODEL, name="m")
    plain.source, plain.target = (replace(space, model=model, site="s") for space in (plain.source, plain.target))
    plain.card = replace(plain.card, kind="k", alignment="a", settings={f"harmless {k}": k for k in range(len(TEXTS))})
    texts = [(one.save(tmp_path / name) / "README.md").read_text("utf-8") for name, one in (("a", hostile), ("b", plain))]
    one, other = (ModelCard(text) for text in texts)
    assert one.data.to_dict() == other.data.to_dict()
    assert structure(one.text) == structure(other.text)
    assert raw_controls(texts[0]) == [] and hidden_from(shown_by(one.text)) == []
