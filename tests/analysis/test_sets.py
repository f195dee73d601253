"""Figures of sets and of edits, on results folders of the rehearsal world."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import realkit as rk
from realkit.apps.training.ship import WEIGHTS
from realkit.base import kernels
from realkit.catalog.lookup import Table
from realkit.catalog.suites import BASE, PROMPTS, Suite
from realkit.rehearsal.data import held_out
from realkit.rehearsal.scenes import render
from realkit.rehearsal.wording import ATTRIBUTES, captions, parse
from realkit.runs import photographs as photographs_of
from realkit.runs.combine import merge
from realkit.runs.store import Store
from realkit.scorers.encoders import ENCODERS, as_jpeg, load_encoder, lock_encoder

EDIT = PROMPTS["rehearsal-edits"].edits[0]
NAME = "rehearsal/clip"
pytestmark = pytest.mark.slow


def embeddings(pictures):
    encoder = load_encoder(NAME, lock_encoder(NAME))
    return encoder.images([as_jpeg(picture) for picture in pictures]).numpy()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number, (caption, seed) in enumerate(held_out(12)):
        ending = ("png", "jpg", "webp")[number % 3]
        render(caption, seed + 500, 96).save(folder / f"{number}.{ending}")
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture(scope="module")
def asked(photographs):
    return dict(
        models="rehearsal/base", samplers=["Euler", "Euler a"], prompts=list(EDIT.values()),
        seeds=2, steps=2, size=64, encoders=NAME, photographs=str(photographs),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "run"
    rk.run(asked, out)
    return out


def rows_of(folder, stage="embed"):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


def test_every_picture_and_photograph_has_an_embedding_of_what_it_shows(folder, photographs):
    rows = rows_of(folder)
    assert [row["status"] for row in rows] == ["ok"] * (2 * 2 * len(EDIT) + 12)
    store = Store(folder)
    row = next(row for row in rows if row["parent"])
    from PIL import Image

    with Image.open(store.path("upscale", row["parent"])) as image:
        expected = embeddings([image.convert("RGB")])[0]
    tensors = load_file(store.path("embed", row["id"]))
    assert np.allclose(tensors["image"], expected, atol=1e-5)
    assert set(tensors) == {"image", "prompt", "scale"}
    shot = next(row for row in rows if row["parent"] is None)
    assert (shot["image_width"], shot["image_height"]) == (64, 64)
    lock = json.loads((folder / "sweep.lock.json").read_text())
    assert len(lock["photographs"][str(photographs)]) == 12


def test_a_run_again_embeds_nothing_and_what_is_lost_alone(folder, asked, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = (copy / "rows.jsonl").read_bytes()
    rk.run(asked, copy)
    assert (copy / "rows.jsonl").read_bytes() == before
    lost = [row["id"] for row in rows_of(copy)[:2] + rows_of(copy)[-1:]]
    for name in lost:
        (copy / "embeddings" / f"{name}.safetensors").unlink()
    rk.run(asked, copy)
    again = (copy / "rows.jsonl").read_bytes()[len(before) :].splitlines()
    assert sorted(json.loads(line)["id"] for line in again) == sorted(lost)
    assert rk.sets(copy).equals(rk.sets(folder))


def test_encoders_added_later_make_no_picture_and_are_no_part_of_ok(asked, tmp_path):
    plain = {key: value for key, value in asked.items() if key not in ("encoders", "photographs")}
    plain["samplers"] = "Euler"
    rk.run(plain, tmp_path / "run")
    with pytest.raises(rk.RequestError, match="has no embeddings: run its sweep again with"):
        rk.sets(tmp_path / "run")
    before = rows_of(tmp_path / "run", "denoise")
    rk.run(plain | {"encoders": NAME}, tmp_path / "run")
    assert rows_of(tmp_path / "run", "denoise") == before
    for row in rows_of(tmp_path / "run"):
        (tmp_path / "run" / "embeddings" / f"{row['id']}.safetensors").unlink()
    assert set(rk.read(tmp_path / "run").table()["status"]) == {"ok"}
    with pytest.raises(rk.RequestError, match="no picture that is embedded by rehearsal/clip"):
        rk.sets(tmp_path / "run")


def test_figures_are_those_of_the_embeddings(folder):
    table = rk.sets(folder)
    assert len(table) == 2 * len(EDIT) and table["set"].nunique() == 2
    part = table[table["sampler"] == "Euler"]
    cells = rk.read(folder).table()
    images = {record["id"]: record["ids"]["image"] for record in Store(folder).cells.read()}
    by_image = {row["parent"]: row["id"] for row in rows_of(folder) if row["parent"]}
    groups = []
    for prompt in part["prompt"]:
        chosen = cells[(cells["sampler"] == "Euler") & (cells["prompt"] == prompt)]
        paths = [Store(folder).path("embed", by_image[images[cell]]) for cell in chosen["cell"]]
        groups.append(np.array([load_file(path)["image"] for path in paths], float))
    shots = [row for row in rows_of(folder) if row["parent"] is None]
    shots.sort(key=lambda row: row["photograph"])
    paths = [Store(folder).path("embed", row["id"]) for row in shots]
    known = np.array([load_file(path)["image"] for path in paths])
    assert np.allclose(part["kernel_distance"], kernels.distances(groups, known), atol=1e-2)
    assert np.allclose(part["told_apart"], kernels.told_apart(groups, known).mean())
    assert np.allclose(part["diversity"], list(map(kernels.diversity, groups)), atol=1e-4)
    assert (table["pictures"] == 2).all() and (table["photographs"] == 12).all()


def test_comparisons_and_means_take_the_figures(folder):
    table = rk.sets(folder)
    means = rk.aggregate(table, "sampler")
    for name in ("kernel_distance", "diversity", "vendi"):
        expected = table.groupby("sampler", sort=False)[name].mean()
        assert means[name].tolist() == pytest.approx(expected.tolist())
    assert "seconds" not in means
    found = rk.compare(table, by="sampler", metric="kernel_distance")
    assert found["n_prompts"].tolist() == [len(EDIT)]
    assert found["effect"].iloc[0] == pytest.approx(-means["kernel_distance"].diff().iloc[1])
    assert any(line.startswith("Only 12 photographs") for line in table.sentences)
    assert any(line.startswith("Told apart from photographs") for line in table.sentences)
    with pytest.raises(rk.RequestError, match="'told_apart' has no better direction"):
        rk.compare(table, by="sampler", metric="told_apart")
    assert rk.sets(rk.read(folder)).equals(table)


def test_photographs_that_change_are_refused_before_any_work(asked, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    place = tmp_path / "other"
    with pytest.raises(rk.RequestError, match="name encoders too"):
        rk.Sweep(models="rehearsal/base", prompts="a", photographs=str(place))
    with pytest.raises(rk.RequestError, match="expected a folder of pictures"):
        rk.run(asked | {"photographs": str(place)}, copy)
    place.mkdir()
    render("a red cube", 0, 96).save(place / "a.png")
    shutil.copy(place / "a.png", place / "b.png")
    with pytest.raises(rk.RequestError, match="holds 1 different pictures"):
        rk.run(asked | {"photographs": str(place)}, copy)
    render("a red cube", 1, 96).save(place / "b.png")
    rk.run(asked | {"photographs": str(place)}, copy)
    render("a red cube", 2, 96).save(place / "c.png")
    with pytest.raises(rk.RequestError, match=r"\(1 new, 0 gone\): put them back"):
        rk.run(asked | {"photographs": str(place)}, copy)
    with pytest.raises(rk.RequestError, match="photographs are of several folders: expected one"):
        rk.sets(copy)
    for where in (copy, copy.parent):
        with pytest.raises(rk.RequestError, match="lie in each other"):
            rk.run(asked | {"photographs": str(where)}, copy)
    for wrong in ("", ["a", "b"], 3):
        with pytest.raises(rk.RequestError, match="expected the path of a folder"):
            rk.Sweep(models="rehearsal/base", prompts="a", encoders=NAME, photographs=wrong)
    (place / "c.png").unlink()
    shutil.move(place, tmp_path / "moved")
    before = (copy / "rows.jsonl").read_bytes()
    rk.run(asked | {"photographs": f"{place}/"}, copy)  # what is embedded needs them no more
    assert (copy / "rows.jsonl").read_bytes() == before
    two = rk.sets(copy, photographs=place)
    assert (two["photographs"] == 2).all() and (rk.sets(folder)["photographs"] == 12).all()


def test_small_and_damaged_photographs_are_said(asked, tmp_path, capsys):
    place = tmp_path / "photographs"
    place.mkdir()
    for seed, size in ((0, 96), (1, 80), (2, 48)):
        render("a red cube", seed, size).save(place / f"{seed}.png")
    (place / "broken.jpg").write_bytes(b"no picture")
    rk.run(asked | {"samplers": "Euler", "photographs": str(place)}, tmp_path / "run")
    assert (
        "Photographs smaller than 64×64, left out at that size: 1 of 4" in capsys.readouterr().err
    )
    shots = [row for row in rows_of(tmp_path / "run") if row["parent"] is None]
    failed = [row for row in shots if row["status"] == "failed"]
    assert len(shots) == 3 and failed[0]["error"].startswith("broken.jpg: ")
    assert (rk.sets(tmp_path / "run")["photographs"] == 2).all()
    assert (
        "Not counted: 2 photographs, too small or not embedded."
        in rk.sets(tmp_path / "run").sentences
    )
    (place / ".hidden").mkdir()
    shutil.copy(place / "0.png", place / ".hidden" / "9.png")
    (place / "album.jpg").mkdir()
    before = len(rows_of(tmp_path / "run"))
    embed = photographs_of.load_encoder
    photographs_of.load_encoder = None  # nothing is left to embed
    try:
        rk.run(asked | {"samplers": "Euler", "photographs": str(place)}, tmp_path / "run")
    finally:
        photographs_of.load_encoder = embed
    again = rows_of(tmp_path / "run")[before:]
    assert [row["status"] for row in again] == ["failed"]  # tried again, and said again


def test_an_encoder_that_fails_is_said_and_the_exit_code_is_1(asked, tmp_path, monkeypatch):
    (tmp_path / "encoders.toml").write_text(
        f'[lost]\nengine = "open_clip"\nsource = "{tmp_path / "lost"}"\nresize = "none"\n'
        'about = "of a folder without weights"\n'
    )
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "open_clip_config.json").write_text("{}")
    (tmp_path / "sweep.yaml").write_text(
        rk.Sweep(**asked | {"samplers": "Euler"}).to_yaml().replace("- rehearsal/clip", "- lost")
    )
    done = subprocess.run(
        [sys.executable, "-m", "realkit", "run", str(tmp_path / "sweep.yaml"), "--out",
         str(tmp_path / "run")],
        capture_output=True, text=True, env={**os.environ, "REALKIT_CATALOG": str(tmp_path)},
    )  # fmt: skip
    if done.returncode == 2:  # refused at the door
        assert "Encoder 'lost'" in done.stderr and not (tmp_path / "run" / "rows.jsonl").exists()
    else:
        assert done.returncode == 1 and "Pictures not embedded: 8; " in done.stderr
        assert "Photographs not embedded: 12 of 12; " in done.stderr
        assert (tmp_path / "run" / "table.csv").exists()


def test_merged_folders_keep_photographs_and_refuse_others_of_that_name(folder, asked, tmp_path):
    shutil.copytree(folder, tmp_path / "in" / "run")
    merge(tmp_path / "in", tmp_path / "out")
    assert rk.sets(tmp_path / "out").equals(rk.sets(folder))
    rk.run(asked | {"samplers": "DDIM", "encoders": [], "photographs": None}, tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "more" / "plain")
    merge(tmp_path / "more", tmp_path / "out")
    assert rk.sets(tmp_path / "out")["kernel_distance"].notna().all()
    lock = tmp_path / "in" / "run" / "sweep.lock.json"
    facts = json.loads(lock.read_text())
    facts["photographs"][asked["photographs"]].popitem()
    lock.write_text(json.dumps(facts))
    with pytest.raises(rk.RequestError, match="means other files"):
        merge(tmp_path / "in", tmp_path / "out")


def test_the_distance_is_over_the_prompts_that_all_sets_have(folder, asked, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    more = {"samplers": "Euler", "prompts": ["a red cube on grass", "a white cone on sand"]}
    rk.run(asked | more, copy)
    table = rk.sets(copy)
    assert "Not in the distance: 2 prompts that not every set has." in table.sentences
    old = table[~table["prompt"].isin(more["prompts"])]
    assert np.allclose(old["kernel_distance"], rk.sets(folder)["kernel_distance"])
    assert table["kernel_distance"].isna().sum() == 2


def test_two_names_of_one_encoder_and_weights_that_come_back_have_their_own_figures(
    asked, tmp_path, monkeypatch
):
    def entry(folder):
        copied = ENCODERS[NAME].model_copy(update={"source": str(folder)})
        monkeypatch.setitem(ENCODERS.__dict__, "_entries", {**ENCODERS, "mine": copied})

    first = shutil.copytree(WEIGHTS / "clip", tmp_path / "first")
    other = shutil.copytree(WEIGHTS / "clip", tmp_path / "other")
    weights = next(other.glob("*.safetensors"))
    tensors = load_file(weights)
    name = max(tensors, key=lambda name: tensors[name].size)
    save_file(tensors | {name: tensors[name] * 0.5}, weights)
    lean = asked | {"samplers": "Euler", "encoders": [NAME, "mine"], "photographs": None}
    entry(first)
    rk.run(lean, tmp_path / "run")
    diversity = rk.sets(tmp_path / "run", "mine")["diversity"]
    assert diversity.equals(rk.sets(tmp_path / "run", NAME)["diversity"])
    entry(other)
    rk.run(lean, tmp_path / "run")
    assert not np.allclose(rk.sets(tmp_path / "run", "mine")["diversity"], diversity)
    entry(first)
    rk.run(lean, tmp_path / "run")
    assert np.allclose(rk.sets(tmp_path / "run", "mine")["diversity"], diversity)


@pytest.mark.parametrize(
    "edits",
    ['["a", "b"]', '"abc"', '{base = "x", shape = "y"}', "3", "true",
     '[{base = ["x"], colour = "y"}]', '[{base = "x"}]', '[{base = "x", colour = "x"}]'],
)  # fmt: skip
def test_wrong_edits_of_a_suite_are_one_line_that_names_the_entry(tmp_path, monkeypatch, edits):
    (tmp_path / "prompts.toml").write_text(f'[mine]\nabout = "a"\nedits = {edits}\n')
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    with pytest.raises(rk.RequestError, match="'mine'") as caught:
        Table("prompt", Suite)["mine"]
    assert "\n" not in str(caught.value)


def test_a_folder_without_photographs_or_seeds_says_what_it_lacks(asked, tmp_path):
    lean = asked | {"samplers": "Euler", "seeds": 1, "prompts": list(EDIT.values())[:2]}
    del lean["photographs"]
    rk.run(lean, tmp_path / "run")
    table = rk.sets(tmp_path / "run")
    assert table[["kernel_distance", "told_apart", "diversity", "vendi"]].isna().all(axis=None)
    text = "\n".join(table.sentences)
    for line in ("No photographs", "fewer than three prompts", "One seed a prompt"):
        assert line in text
    with pytest.raises(rk.RequestError, match="no embeddings by 'dinov2': expected one of rehears"):
        rk.sets(tmp_path / "run", encoder="dinov2")


def test_rendered_scenes_are_nearer_to_renders_than_generated_ones(folder):
    known = held_out(60)
    photographs = embeddings([render(caption, seed + 900, 64) for caption, seed in known[:40]])
    scenes = [embeddings([render(c, seed + s, 64) for s in (0, 7)]) for c, seed in known[40:56]]
    model = rk.load("rehearsal/base")
    made = []
    for caption, _ in known[40:56]:
        shots = [model(caption, seed=s, steps=4, size=64) for s in (0, 1)]
        made.append(embeddings(shots))
    rendered = kernels.distances(scenes, photographs)
    generated = kernels.distances(made, photographs)
    assert rendered.mean() < generated.mean()
    told = kernels.told_apart(made, photographs).mean()
    assert kernels.told_apart(scenes, photographs).mean() < told


def test_edits_of_the_suites_change_one_attribute():
    held = set(captions("heldout"))
    for edit in PROMPTS["rehearsal-edits"].edits:
        base = parse(edit[BASE])
        for attribute, text in edit.items():
            assert text in held
            if attribute != BASE:
                changed = [a for a in ATTRIBUTES if getattr(parse(text), a) != getattr(base, a)]
                assert changed == [attribute]
    for name in ("rehearsal-edits", "people-edits"):
        texts = {text for edit in PROMPTS[name].edits for text in edit.values()}
        assert len(PROMPTS[name].edits) == 12 and set(PROMPTS[name].prompts) == texts
        pairs = []
        for edit in PROMPTS[name].edits:
            pairs += [frozenset((edit[BASE], text)) for text in list(edit.values())[1:]]
        assert len(pairs) == len(set(pairs))  # a pair and its mirror would be one


def test_edits_are_those_of_the_definition(folder):
    table = rk.edits(folder, "rehearsal-edits")
    texts, count = set(EDIT.values()), 0
    for edit in PROMPTS["rehearsal-edits"].edits:
        if edit[BASE] in texts:
            count += len(texts & set(edit.values())) - 1
    assert len(table) == 2 * 2 * count and count >= len(EDIT) - 1
    row = table.iloc[0]
    cells = rk.read(folder).table()
    images = {record["id"]: record["ids"]["image"] for record in Store(folder).cells.read()}
    by_image = {row["parent"]: row["id"] for row in rows_of(folder) if row["parent"]}
    found = {}
    for text in EDIT.values():
        same = (cells["prompt"] == text) & (cells["seed"] == row["seed"])
        cell = cells[same & (cells["sampler"] == row["sampler"])]["cell"].item()
        found[text] = load_file(Store(folder).path("embed", by_image[images[cell]]))
    before, after = found[row["prompt"]], found[row["edit"]]
    seen, said = after["image"] - before["image"], after["prompt"] - before["prompt"]
    cosine = seen @ said / np.linalg.norm(seen) / np.linalg.norm(said)
    assert row["response"] == pytest.approx(100 * cosine, abs=1e-3)
    moved = []
    for text in set(EDIT.values()) - {row["prompt"], row["edit"]}:
        words = np.array([found[row["prompt"]]["prompt"], found[text]["prompt"]])
        shares = []
        for picture in (before, after):
            weights = np.exp(before["scale"] * (words @ picture["image"]))
            shares.append(100 * weights[1] / weights.sum())
        moved.append(abs(shares[1] - shares[0]))
    assert row["leakage"] == pytest.approx(np.mean(moved), abs=1e-2)
    found = rk.compare(table, by="sampler", metric="leakage", within="attribute")
    assert set(found["attribute"]) >= set(EDIT) - {BASE}
    with pytest.raises(rk.RequestError, match="Suite 'people' has no edits"):
        rk.edits(folder, "people")
    with pytest.raises(rk.RequestError, match="no picture of an edit and its base"):
        rk.edits(folder, "people-edits")


def rendered_edits(more=()):
    """The answers to the suite's edits of pictures that show them, and in the pictures of edits
    also those `more`: (attribute → its own edit is shown too)."""
    from realkit.analysis.edits import _answer

    encoder = load_encoder(NAME, lock_encoder(NAME))
    answers = []
    for number, edit in enumerate(PROMPTS["rehearsal-edits"].edits):
        texts = dict(edit)
        base = texts.pop(BASE)
        words = dict(zip(edit.values(), encoder.prompts(list(edit.values())).numpy(), strict=True))
        scale = np.array([encoder.scale])
        for attribute, text in texts.items():
            scene = parse(text)
            other = next(name for name in texts if name != attribute)
            if more:
                value = getattr(parse(texts[other]), other)
                scene = type(scene)(**{**vars(scene), other: value})
            first, second = embeddings([render(text, number, 64) for text in (base, scene.caption)])
            before = {"image": first, "prompt": words[base], "scale": scale}
            after = {"image": second, "prompt": words[text], "scale": scale}
            answers.append(_answer(before, after, [words[texts[other]]]))
    return answers


def test_pictures_that_show_an_edit_answer_it_and_leak_less_than_those_that_show_two():
    one, two = rendered_edits(), rendered_edits(more=True)
    assert np.mean([answer["answered"] for answer in one]) > 90
    assert np.mean([answer["leakage"] for answer in one]) < 0.5 * np.mean(
        [answer["leakage"] for answer in two]
    )


def test_the_command_line_says_figures_and_verdicts(folder):
    def said(*arguments):
        command = [sys.executable, "-m", "realkit", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout

    text = said("sets", str(folder), "--by", "sampler")
    assert "kernel_distance by sampler (4 prompts, lower is better)" in text
    text = said("edits", str(folder), "rehearsal-edits", "--by", "sampler", "--within", "attribute")
    assert "Answered: " in text and "response by sampler" in text
