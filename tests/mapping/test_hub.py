"""Mappers on the Hugging Face Hub, which a fake stands for: what is sent, what is asked for, what goes wrong; and the card."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError

from interp_transfer.mapping.card import CURVE_ROWS, Card
from interp_transfer.mapping.fit import fit
from interp_transfer.mapping.mappers import Mapper
from tests.mapping.test_fit import paired, planted
from tests.test_network import run

COMMIT = "c" * 40


def made(kind: str = "affine", **settings: Any) -> Mapper:
    x, y, _ = planted(rows=200)
    return fit(paired(x, y), kind, **settings)


def same(one: Mapper, other: Mapper) -> bool:
    x = planted(rows=50)[0]
    return torch.equal(one(x), other(x)) and (one.card, one.source, one.target) == (other.card, other.source, other.target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub of folders: what `HfApi` uploads is copied there, and `snapshot_download` copies it into its cache."""
    root = tmp_path / "hub"

    def create_repo(_self: HfApi, repo_id: str, **asked: Any) -> Any:
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        (root / "asked.json").write_text(json.dumps(asked))
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(_self: HfApi, *, repo_id: str, folder_path: Path, revision: str | None, **_: Any) -> str:
        shutil.copytree(folder_path, root / repo_id / (revision or "main"), dirs_exist_ok=True)
        return f"https://huggingface.co/{repo_id}/commit/{COMMIT}"

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        cache = tmp_path / "cache" / repo_id / (revision or "main")
        cache.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (file := root / repo_id / (revision or "main") / name).exists():
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    yield root


def test_there_and_back(hub: Path, tmp_path: Path) -> None:
    mapper = made("autoencoder", epochs=2)
    address = mapper.push_to_hub("me/mapper", private=True)
    assert address.endswith(f"me/mapper/commit/{COMMIT}")
    sent = hub / "me/mapper/main"
    assert sorted(p.name for p in sent.iterdir()) == ["README.md", "mapper.json", "mapper.safetensors"]
    assert json.loads((hub / "asked.json").read_text())["private"] is True
    assert same(Mapper.from_pretrained("me/mapper"), mapper)
    assert isinstance(mapper, ModelHubMixin)
    # One format: the uploaded folder is what `save` writes, but for the name that the card tells to load.
    mapper.save(tmp_path / "local")
    for name in ("mapper.json", "mapper.safetensors"):
        assert (tmp_path / "local" / name).read_bytes() == (sent / name).read_bytes()
    assert 'it.Mapper.from_pretrained("me/mapper")' in (sent / "README.md").read_text()


def test_revisions(hub: Path) -> None:
    main, other = made(), made(ridge=1e-2)
    main.push_to_hub("me/mapper")
    other.push_to_hub("me/mapper", branch="other")
    assert same(Mapper.from_pretrained("me/mapper", revision="other"), other)
    assert same(Mapper.from_pretrained("me/mapper"), main) and not same(main, other)
    assert (hub / "me/mapper/other/mapper.json").exists()


def test_a_repository_without_a_mapper(hub: Path) -> None:
    (hub / "some/model/main").mkdir(parents=True)
    with pytest.raises(ValueError, match="'some/model' holds no mapper .*mapper.json and mapper.safetensors missing"):
        Mapper.from_pretrained("some/model")


def test_a_folder_is_what_it_says(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = made()
    mapper.save(tmp_path / "me/mapper")
    assert same(Mapper.from_pretrained(tmp_path / "me/mapper"), mapper)
    mapper.save_pretrained(tmp_path / "mixin")
    assert sorted(p.name for p in (tmp_path / "mixin").iterdir()) == ["README.md", "mapper.json", "mapper.safetensors"]
    assert same(Mapper.load(tmp_path / "mixin"), mapper)
    monkeypatch.chdir(tmp_path)
    assert same(Mapper.from_pretrained("me/mapper"), mapper)  # before a repository of that name
    assert not hub.exists()
    with pytest.raises(ValueError, match="revision='main': 'me/mapper' is a folder"):
        Mapper.from_pretrained("me/mapper", revision="main")
    for nowhere in ("./nowhere", "/no/such/place", "~/no/such/place", "me/mapper/mapper.json"):
        with pytest.raises(ValueError, match="there is no folder"):
            Mapper.from_pretrained(nowhere)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="mapper.json is missing"):
        Mapper.from_pretrained("empty")


LOAD = """
from interp_transfer.mapping.mappers import Mapper
for name in {names!r}:
    try:
        print(type(Mapper.from_pretrained(name)).__name__)
    except (ValueError, RuntimeError) as error:
        print(type(error).__name__, error)
"""


def test_folders_do_not_touch_the_network(tmp_path: Path) -> None:
    made().save(tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "odd")  # checked also where beartype does not check for us, as it does here
    odd = (tmp_path / "odd/mapper.json").read_text().replace('"seed": 0', '"seed": "zero"')
    (tmp_path / "odd/mapper.json").write_text(odd)
    done = run(LOAD.format(names=[*(str(tmp_path / name) for name in ("m", "odd", "nowhere")), "me/mapper"]))
    folder, odd, nowhere, repository = done.stdout.splitlines()
    assert odd.startswith("ValueError the mapper in") and "is damaged" in odd
    assert folder == "Mapper" and nowhere.startswith("ValueError there is no folder")
    assert repository.startswith("RuntimeError the network was reached for")  # so it would have been seen
    assert not done.stderr, done.stderr


def test_offline(tmp_path: Path) -> None:
    """The tests run with HF_HUB_OFFLINE=1."""
    says = "'me/mapper': the network is turned off .* unset HF_HUB_OFFLINE .* a downloaded folder"
    with pytest.raises(ValueError, match=says):
        Mapper.from_pretrained("me/mapper", cache_dir=tmp_path)
    with pytest.raises(ValueError, match=says):
        Mapper.from_pretrained("me/mapper", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(ValueError, match="cannot push to 'me/mapper': the network is turned off"):
        made().push_to_hub("me/mapper")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let huggingface-hub's own client get one answer to whatever it asks, or an error of the connection."""
    http: Any = __import__(HfHubHTTPError.__bases__[0].__module__.split(".")[0])  # httpx or httpx2, as its version has it
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def set_answer(status: int | None, code: str = "") -> None:
        def answer(request: Any) -> Any:
            if status is None:
                raise http.ConnectError("nobody answers", request=request)
            return http.Response(status, headers={"X-Error-Code": code}, json={}, request=request)

        huggingface_hub.set_client_factory(lambda: http.Client(transport=http.MockTransport(answer)))

    yield set_answer
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "there is no such folder, and no such repository unless it is private.*hf auth login"),
        (401, "RepoNotFound", "there is no such folder, and no such repository unless it is private.*hf auth login"),
        (403, "GatedRepo", "gated; request access at https://huggingface.co/me/mapper, then log in"),
        (404, "RevisionNotFound", "no revision 'v2'; name a branch"),
        (None, "", "could not be reached .*nobody answers.*a downloaded folder"),
    ],
)
def test_what_goes_wrong_is_said_once_and_with_a_remedy(
    status: int | None, code: str, says: str, answers: Callable[..., None], tmp_path: Path
) -> None:
    answers(status, code)
    with pytest.raises(ValueError, match=f"^cannot load a mapper from 'me/mapper': .*{says}") as caught:
        Mapper.from_pretrained("me/mapper", revision="v2", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "says"), [(403, "refuses access; log in"), (401, "log in"), (None, "nobody answers")])
def test_a_push_that_fails(status: int | None, says: str, answers: Callable[..., None]) -> None:
    answers(status)
    with pytest.raises(ValueError, match=f"^cannot push to 'me/mapper': .*{says}") as caught:
        made().push_to_hub("me/mapper", token="hf_none")
    assert "\n" not in str(caught.value)


def test_names_that_are_none() -> None:
    with pytest.raises(ValueError, match="'a//b': this is not a valid repository name; give 'user/name'"):
        Mapper.from_pretrained("a//b")
    with pytest.raises(ValueError, match="'a//b': this is not a valid repository name"):
        made().push_to_hub("a//b")


def test_the_card_tells_the_fit(tmp_path: Path) -> None:
    mapper = made("autoencoder", epochs=30, width=5)
    mapper.card = replace(mapper.card, rows=123456, held_out_rows=789, fvu=0.125, cosine=0.875, norm_ratio=0.5, massive_rows=42)
    text = (mapper.save(tmp_path) / "README.md").read_text()
    for space in (mapper.source, mapper.target):
        line = next(line for line in text.splitlines() if space.model.fingerprint in line)
        assert line.split(" | ")[1:] == [
            space.model.name,
            space.model.fingerprint,
            space.model.processing,
            space.site,
            f"{space.d} |",
        ]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = {line[0]: line[1] for line in cells if len(line) == 2}
    assert rows["kind"] == "autoencoder" and rows["parameters"] == f"{mapper.card.parameters:,}"
    assert rows["rows fitted"] == "123,456" and rows["rows held out"] == "789"
    held = {key: value.split()[0] for key, value in rows.items() if key.endswith(", held out")}
    assert sorted(held.values()) == ["0.1250", "0.5000", "0.8750"]
    assert rows["alignment of the tokens"] == "same_tokens"
    assert rows["rows of massive length, not fitted"] == "42"
    assert rows["seed"] == "0"
    assert rows["setting width"] == "5" and rows["setting epochs"] == "30"
    shown = {int(key): float(value) for key, value in rows.items() if key.isdigit()}
    assert {1, len(mapper.card.curve)} <= set(shown) and len(shown) <= CURVE_ROWS + 1
    for epoch, loss in shown.items():
        assert loss == pytest.approx(mapper.card.curve[epoch - 1], rel=1e-4)
    assert f"epoch {mapper.card.curve.index(min(mapper.card.curve)) + 1} were kept" in text
    assert "arxiv.org/abs/2503.04429" in text and "@inproceedings" in text
    assert "A control" not in text
    x, y, _ = planted(rows=200)
    assert "A control" in str(fit(paired(x, y).shuffled(0), "affine").generate_model_card())


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    mapper = made()
    card = ModelCard.load(mapper.save(tmp_path) / "README.md")
    assert card.data.to_dict()["library_name"] == "interp_transfer"
    assert "activation-steering" in card.data.to_dict()["tags"]
    assert "## Training" not in card.text and "\n| seed | 0 |" in card.text


def test_a_card_is_written_anew_and_the_readers_own_file_is_left(tmp_path: Path) -> None:
    made("procrustes").save(tmp_path)
    assert "# procrustes" in (tmp_path / "README.md").read_text()
    for save in (made("affine").save, made("low_rank", rank=2).save_pretrained):
        save(tmp_path)
        kind = json.loads((tmp_path / "mapper.json").read_text())["card"]["kind"]
        assert f"# {kind}" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("# My notes\n\nlibrary_name: interp_transfer\n")
    made().save(tmp_path)
    assert (tmp_path / "README.md").read_text().startswith("# My notes")


@pytest.mark.parametrize(("key", "value"), [("rows", "many"), ("curve", [None]), ("settings", 3), ("fvu", None)])
def test_what_a_file_says_is_checked(key: str, value: Any, tmp_path: Path) -> None:
    made().save(tmp_path)
    plain = json.loads((tmp_path / "mapper.json").read_text())
    plain["card"][key] = value
    (tmp_path / "mapper.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="is damaged"):
        Mapper.load(tmp_path)


@pytest.mark.parametrize(
    ("curve", "most", "sentence"),
    [
        ([], 20, ""),
        ([0.5, 0.4, 0.41, 0.42], 20, "Stopped after 4 of 20 epochs: the held-out error had not fallen since epoch 2."),
        ([0.8, 0.5, 0.42, 0.4], 4, "All 4 epochs: the last 1 lowered the held-out error by 4.8%; more may gain as much."),
        ([0.5], 1, "All 1 epochs: the last 1 lowered the held-out error by 0.0%; more may gain as much."),
    ],
)
def test_the_card_says_how_training_ended(curve: list[float], most: int, sentence: str) -> None:
    settings = {"epochs": most}
    assert Card("autoencoder", 1, 0.0, 0.0, 0.0, 1, 1, 0, settings=settings, curve=curve).training == sentence


def test_files_that_were_changed_or_exchanged_are_refused_and_older_ones_are_read(tmp_path: Path) -> None:
    made().save(tmp_path / "a")
    made(seed=1).save(tmp_path / "b")
    path = tmp_path / "a/mapper.json"
    whole = path.read_text()
    assert Mapper.load(tmp_path / "a").card.seed == 0
    shutil.copy(tmp_path / "b/mapper.safetensors", tmp_path / "a/mapper.safetensors")
    for text in (whole, whole.replace('"seed": 0', '"seed": 2')):
        path.write_text(text)
        with pytest.raises(ValueError, match="'.*a' is damaged: its content does not fit its digest"):
            Mapper.load(tmp_path / "a")
    path.write_text(json.dumps({key: value for key, value in json.loads(whole).items() if key != "digest"}))
    assert Mapper.load(tmp_path / "a").card.seed == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"kind"', '"ki\xff"'),
        ('"seed": 0', '"seed": ' + "9" * 5000),
        ('"seed": 0', '"seed": 0, "' + "x" * 10_000 + '": 1'),
        ('"card": {', '"card": [], "other": {'),
        ('"d": 6', '"d": 1000000000000'),
    ],
)
def test_a_damaged_mapper_gives_one_short_line(old: str, new: str, tmp_path: Path) -> None:
    made().save(tmp_path)
    path = tmp_path / "mapper.json"
    assert old in path.read_text(), path.read_text()
    path.write_bytes(path.read_text().replace(old, new).encode("latin-1"))
    with pytest.raises(ValueError, match="is damaged") as error:
        Mapper.load(tmp_path)
    text = str(error.value).replace(str(tmp_path), "FOLDER")
    assert "FOLDER" in text and len(text) < 500 and text.isprintable() and "allocate" not in text
