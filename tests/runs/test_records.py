"""Records have one schema, written, read and attached; every file is the one that was written."""

import copy
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realkit as rk
from realkit.catalog.columns import COLUMNS
from realkit.runs.attach import is_picture
from realkit.runs.jobs import sha256
from realkit.runs.locks import NAME, read_locks
from realkit.runs.records import CELL, ROW, RUN, Row
from realkit.runs.store import Store
from tests.cuts import thinned

OLD = Path(__file__).parents[1] / "data" / "folder-1"
ONE = {
    "models": "rehearsal/base", "samplers": "Euler", "prompts": "a red cube", "steps": 1,
    "size": 64, "guidance": 1, "scorers": "colour-cast",
}  # fmt: skip
HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none()),
    st.just("../../escaped"), st.just("NaN"), st.just(2**70), st.just("0" * 16),
)  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The finished folder of one cell. Copy it, do not write to it."""
    folder = tmp_path_factory.mktemp("one") / "out"
    rk.run(ONE, folder)
    return folder


@pytest.fixture
def folder(one, tmp_path):
    return shutil.copytree(one, tmp_path / "folder")


def records(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_bytes().splitlines()]


def write(folder: Path, name: str, lines: list[dict]) -> None:
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_every_column_that_a_row_fills_has_a_kind_in_the_schema():
    filled = {column.field or name for name, column in COLUMNS.items() if column.stage}
    assert filled <= Row.__annotations__.keys()


@pytest.mark.parametrize(("name", "schema"), [("rows", ROW), ("cells", CELL), ("runs", RUN)])
def test_records_of_before_and_of_now_pass(one, name, schema):
    for folder in (OLD, one):
        for line in (folder / f"{name}.jsonl").read_bytes().splitlines():
            assert schema.validate_json(line) == json.loads(line) | {}  # unknown fields stay


def test_a_field_of_a_later_version_is_kept(folder):
    write(folder, "rows.jsonl", [row | {"energy_j": 3} for row in records(folder, "rows.jsonl")])
    rk.run(ONE | {"scorers": ["colour-cast", "cast-green-red"]}, folder)
    assert [row.get("energy_j") for row in Store(folder).rows.read()][:3] == [3, 3, 3]


@pytest.mark.parametrize("name", ["rows.jsonl", "cells.jsonl", "runs.jsonl"])
@settings(max_examples=12, derandomize=True, deadline=None, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(data=st.data())
def test_a_hostile_record_is_one_line_or_harmless(one, tmp_path_factory, name, data):
    """Read, and attached to another folder, which stays as it was unless all of it passed."""
    folder = shutil.copytree(one, tmp_path_factory.mktemp("hostile") / "out")
    lines = records(folder, name)
    line = data.draw(st.sampled_from(lines))
    holder = data.draw(st.sampled_from(holders(line)))
    key = data.draw(st.sampled_from([*sorted(holder), "unknown"]))
    if data.draw(st.booleans()):
        holder.pop(key, None)
    else:
        holder[key] = data.draw(HOSTILE)
    write(folder, name, lines)
    for work in (lambda: rk.read(folder).table(), lambda: rk.run(ONE, folder)):
        try:
            work()
        except rk.RequestError as error:
            assert "\n" not in str(error)


def holders(record: dict) -> list[dict]:
    """A record and the mappings in it."""
    return [record] + [value for value in record.values() if isinstance(value, dict) and value]


HARM = {
    "an unknown status": lambda row: row | {"status": "done"},
    "text for seconds": lambda row: row | {"denoise_s": "fast", "decode_s": "fast"},
    "a list for an id": lambda row: row | {"id": ["a"]},
    "a mapping for the name of a run": lambda row: row | {"run": {"a": 1}},
    "its own ancestor": lambda row: row | {"parent": row["id"]},
    "a scorer named as a column": lambda row: row | {"scorer": "status"},
    "an endless number": lambda row: row | {"at": float("inf")},
}


@pytest.mark.parametrize("harm", thinned(HARM, ["text for seconds", "its own ancestor"]))
def test_an_output_with_a_bad_row_changes_nothing(one, tmp_path, harm):
    rows = records(one, "rows.jsonl")
    rows[-1] = HARM[harm](copy.deepcopy(rows[-1]))
    bad = shutil.copytree(one, tmp_path / "bad")
    write(bad, "rows.jsonl", rows)
    out = tmp_path / "out"
    rk.run(ONE | {"seeds": [5]}, out)
    before = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    with pytest.raises(rk.RequestError, match=r"rows\.jsonl.* damaged.*Take another copy"):
        rk.run(ONE | {"seeds": [5]}, out, attach=[one, bad])
    assert {path: path.read_bytes() for path in out.glob("*.jsonl")} == before
    assert rk.run(ONE | {"seeds": [5]}, out).table()["status"].tolist() == ["ok"]


def test_two_flipped_bits_in_latents_are_found_and_the_latents_made_again(folder):
    (latents,) = (folder / "latents").iterdir()
    whole = latents.read_bytes()
    latents.write_bytes(whole[:-9] + bytes([whole[-9] ^ 3]) + whole[-8:])
    (folder / rk.read(folder).table()["image"][0]).unlink()
    broken = rk.run(ONE, folder).table()
    assert "was damaged and is removed: run again" in broken["error"][0]
    assert not latents.exists()
    assert rk.run(ONE, folder).table()["status"].tolist() == ["ok"]
    assert latents.read_bytes() == whole


def test_a_picture_repainted_by_another_program_gets_no_score(folder):
    from PIL import Image

    path = folder / rk.read(folder).table()["image"][0]
    Image.new("RGB", (64, 64), "red").save(path)
    table = rk.run(ONE | {"scorers": "cast-green-red"}, folder).table()
    assert table["status"].tolist() == ["failed"] and "was damaged" in table["error"][0]


def test_latents_changed_in_an_attached_output_are_not_taken(one, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(one.rglob("*")):
            name = path.relative_to(one).as_posix()
            if path.is_file() and not name.startswith("images"):
                data = path.read_bytes()
                if name.startswith("latents"):
                    moved = {"latents": safetensors.numpy.load(data)["latents"] + np.float32(0.8)}
                    data = safetensors.numpy.save(moved)
                archive.writestr(name, data)
    (tmp_path / "moved.zip").write_bytes(packed.getvalue())
    here = rk.run(ONE, tmp_path / "out", attach=tmp_path / "moved.zip")
    assert here.table()["colour-cast"][0] == rk.read(one).table()["colour-cast"][0]
    assert [row["stage"] for row in here.store.rows.read()][:2] != ["decode", "score"]
    (latents,) = (tmp_path / "out" / "latents").iterdir()
    assert latents.read_bytes() == (one / "latents" / latents.name).read_bytes()


def test_every_file_carries_its_hash(folder):
    store = Store(folder)
    for row in store.rows.read():
        if row["stage"] == "denoise":
            assert row["sha256"] == sha256(store.path(row["stage"], row["id"]).read_bytes())
        elif row["stage"] == "decode":
            assert is_picture(store.path(row["stage"], row["id"]).read_bytes(), row["pixels"])


def test_a_file_of_before_is_believed_and_its_hash_recorded_at_first_use(folder):
    rows = records(folder, "rows.jsonl")
    for row in rows:
        row.pop("sha256", None)
    write(folder, "rows.jsonl", rows)
    assert rk.run(ONE, folder).table()["status"].tolist() == ["ok"]
    assert records(folder, "rows.jsonl") == rows  # nothing was used
    (folder / rk.read(folder).table()["image"][0]).unlink()
    assert rk.run(ONE, folder).table()["status"].tolist() == ["ok"]
    latents, picture = records(folder, "rows.jsonl")[len(rows) :]
    assert latents == rows[0] | {"sha256": latents["sha256"]} and picture["stage"] == "decode"
    assert rk.read(folder).table()["status"].tolist() == ["ok"]


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("models",), []), (("models", "rehearsal/base", "main"), 3),
        (("models", "rehearsal/base", "main", "files"), {"a": 3}),
        (("models", "rehearsal/base", "main", "kind"), "disk"),
        (("models", "rehearsal/base", "spec"), None),
        (("models", "rehearsal/base", "spec", "size"), "wide"),
        (("models", "rehearsal/base", "scheduler"), "Euler"),
        (("upscalers",), {"lanczos": {"a": {"ref": 1}}}), (("id_version",), None),
    ],
)  # fmt: skip
def test_a_wrong_value_in_the_lock_is_one_line(folder, place, wrong):
    data = json.loads((folder / NAME).read_text())
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = wrong
    (folder / NAME).write_text(json.dumps(data))
    with pytest.raises(rk.RequestError, match=r"sweep\.lock\.json' is damaged|id version None"):
        read_locks(folder)


@pytest.mark.parametrize("harm", ["prompt", "image", "id"])
def test_a_cell_whose_id_is_not_that_of_its_settings_is_damage(folder, tmp_path, harm):
    (cell,) = records(folder, "cells.jsonl")
    if harm == "id":
        cell["id"] = "0" * 16
    elif harm == "image":
        cell["ids"]["image"] = "0" * 16
    else:
        cell["cell"]["prompt"] = "a red cubf"
    write(folder, "cells.jsonl", [cell])
    for use in (lambda: rk.read(folder).table(), lambda: rk.run(ONE, folder)):
        with pytest.raises(rk.RequestError, match=r"cells\.jsonl line 1 is damaged \(a cell \w+ w"):
            use()


def test_a_cell_of_a_later_version_may_count_more(folder):
    (cell,) = records(folder, "cells.jsonl")
    cell["cell"]["clip_skip"] = 2
    write(folder, "cells.jsonl", [cell])
    assert len(rk.read(folder).table()) == 1


def test_an_id_of_two_kinds_is_damage(folder, tmp_path):
    rows = records(folder, "rows.jsonl")
    write(folder, "rows.jsonl", [*rows, rows[0] | {"id": rows[1]["id"]}])
    for work in (rk.read(folder).table, lambda: rk.run(ONE, tmp_path / "out", attach=folder)):
        with pytest.raises(rk.RequestError, match=r"is an id of decode and of denoise"):
            work()


def test_attaching_what_cannot_be_listed_is_one_line(tmp_path):
    with pytest.raises(rk.RequestError, match="attach '/dev/zero': it is a device"):
        rk.run(ONE, tmp_path / "out", attach="/dev/zero")
