"""Earlier outputs taken up into a results folder."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.runs import attach
from realkit.runs.store import Store
from tests.cuts import thinned

SWEEP = {
    "models": "rehearsal/base",
    "prompts": "a photo of a matte red cube on grass at noon",
    "seeds": 3,
    "steps": 2,
    "size": 64,
    "scorers": ["colour-cast"],
    "upscalers": "lanczos",
    "target": 200,
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier") / "results" / "first"
    rk.run(SWEEP, folder)
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


FORMS = ["folder", "above", "zip", "mount", "kaggle"]


@pytest.mark.parametrize("form", thinned(FORMS, ["zip", "kaggle"]))
def test_every_form_of_an_output_is_gone_on_with(earlier, tmp_path, monkeypatch, form):
    source = {"folder": earlier, "above": earlier.parent.parent}.get(form)
    if form == "zip":
        source = shutil.make_archive(str(tmp_path / "output"), "zip", earlier.parent.parent)
    elif source is None:
        monkeypatch.setenv("REALKIT_INPUTS", str(tmp_path / "input"))
        shutil.copytree(earlier.parent, tmp_path / "input" / "notebooks" / "me" / "my-sweep")
        source = (
            "kaggle:me/my-sweep"
            if form == "kaggle"
            else tmp_path / "input" / "notebooks" / "me" / "my-sweep"
        )
    run = rk.run(SWEEP | {"seeds": 4}, tmp_path / "out", attach=source)
    found = [row["stage"] for row in rows(tmp_path / "out")]
    assert {stage: found.count(stage) for stage in set(found)} == {
        "denoise": 4,
        "decode": 4,
        "upscale": 4,
        "score": 4,
    }
    taken = {row["id"]: row for row in rows(earlier)}
    assert [row for row in rows(tmp_path / "out") if row["id"] in taken] == list(
        taken.values()
    )  # as they were: with their runs and times
    frame = run.table()
    assert (
        frame.status.tolist() == ["ok"] * 4
        and frame["colour-cast"].notna().all()
        and frame.run.nunique() == 2
    )
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 2
    rk.run(SWEEP | {"seeds": 4}, tmp_path / "out", attach=source)
    assert len(rows(tmp_path / "out")) == 16


def test_what_is_damaged_or_missing_is_made_again(earlier, tmp_path):
    folder = tmp_path / "earlier"
    shutil.copytree(earlier, folder)
    made = [row for row in rows(folder) if row["stage"] == "upscale"]
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(
        folder / "images" / f"{made[0]['id']}.png"
    )
    (folder / "images" / f"{made[1]['id']}.png").write_bytes(b"\x89PNG")
    (folder / "images" / f"{made[2]['id']}.png").unlink()
    latents = sorted((folder / "latents").iterdir())
    latents[0].write_bytes(latents[0].read_bytes()[:50])
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"id": "torn')
    run = rk.run(SWEEP, tmp_path / "out", attach=[folder])
    found = [row["stage"] for row in rows(tmp_path / "out")]
    assert (found.count("denoise"), found.count("decode"), found.count("upscale")) == (
        3,
        3,
        3,
    ) and set(run.table().status) == {"ok"}
    again = {
        row["id"]: row["pixels"] for row in rows(tmp_path / "out") if row["stage"] == "upscale"
    }
    assert again == {row["id"]: row["pixels"] for row in made}


def test_failed_rows_are_not_taken_up(earlier, tmp_path):
    folder = tmp_path / "earlier"
    shutil.copytree(earlier, folder)
    last = rows(folder)[0]
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(last | {"status": "failed", "error": "x", "error_type": "X"}) + "\n")
    store = Store(tmp_path / "out")
    store.folder.mkdir()
    versions = json.loads((folder / "runs.jsonl").read_text().splitlines()[0])["versions"]
    assert attach.take(attach.outputs(folder), store, versions) == len(rows(earlier)) - 1
    assert attach.take(attach.outputs(folder), store, versions) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id_version": 999}, "made with id version 999"),
        ({"versions": {"torch": "0.1"}}, r"made with other versions \(torch 0\.1 → "),
    ],
)
def test_an_output_of_another_kit_is_refused(earlier, tmp_path, change, says):
    folder = tmp_path / "earlier"
    shutil.copytree(earlier, folder)
    line = json.loads((folder / "runs.jsonl").read_text().splitlines()[0])
    (folder / "runs.jsonl").write_text(json.dumps(line | change) + "\n")
    with pytest.raises(rk.RequestError, match=says):
        rk.run(SWEEP, tmp_path / "out", attach=folder)
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_what_is_no_output_is_one_line_before_anything(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/b.txt", "x")
    for source, says in (
        ("nowhere", "no such folder"),
        ("empty", "no results folder in it"),
        ("a.txt", "this file is neither"),
        ("a.zip", "no results folder in it"),
    ):
        with pytest.raises(rk.RequestError, match=says) as error:
            rk.run(SWEEP, tmp_path / "out", attach=tmp_path / source)
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    with pytest.raises(rk.RequestError, match="attach 3"):
        rk.run(SWEEP, tmp_path / "out", attach=[3])


def test_no_file_outside_the_folder_is_written(earlier, tmp_path):
    folder = tmp_path / "earlier"
    shutil.copytree(earlier, folder)
    row = next(row for row in rows(folder) if row["stage"] == "upscale")
    (folder / "rows.jsonl").write_text(json.dumps(row | {"id": "../../escaped"}) + "\n")
    shutil.copy(folder / "images" / f"{row['id']}.png", tmp_path / "escaped.png")
    store = Store(tmp_path / "a" / "out")
    store.folder.mkdir(parents=True)
    versions = json.loads((folder / "runs.jsonl").read_text().splitlines()[0])["versions"]
    with pytest.raises(rk.RequestError, match=r"rows\.jsonl line 1 is damaged \(id: .*escaped"):
        attach.take(attach.outputs(folder), store, versions)
    assert not list(tmp_path.joinpath("a").rglob("*.png")) and not store.rows.path.exists()


def test_a_zip_with_damaged_members_gives_what_is_whole(earlier, tmp_path):
    packed = tmp_path / "output.zip"
    shutil.make_archive(str(packed.with_suffix("")), "zip", earlier.parent)
    with zipfile.ZipFile(packed) as archive:
        picture = next(info for info in archive.infolist() if info.filename.endswith(".png"))
        table = next(info for info in archive.infolist() if info.filename.endswith("/rows.jsonl"))
    for info, wrong in ((picture, False), (table, True)):
        data = bytearray(packed.read_bytes())
        middle = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
        data[middle : middle + 20] = bytes(20)
        (tmp_path / "damaged.zip").write_bytes(data)
        out = tmp_path / ("wrong" if wrong else "out")
        if wrong:
            with pytest.raises(
                rk.RequestError, match=r"rows\.jsonl is damaged\. Take another copy"
            ):
                rk.run(SWEEP, out, attach=tmp_path / "damaged.zip")
        else:
            assert (
                rk.run(SWEEP, out, attach=tmp_path / "damaged.zip").table().status.tolist()
                == ["ok"] * 3
            )
            assert (out / "images" / picture.filename.rpartition("/")[2]).exists()


def test_runs_that_are_none_are_one_line(earlier, tmp_path):
    shutil.copytree(earlier, tmp_path / "odd")
    lines = [
        json.loads(line) | {"versions": [1]}
        for line in (tmp_path / "odd" / "runs.jsonl").read_text().splitlines()
    ]
    (tmp_path / "odd" / "runs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(rk.RequestError, match=r"runs\.jsonl line 1 is damaged \(versions"):
        rk.run(SWEEP, tmp_path / "out", attach=tmp_path / "odd")
