import json
import os

import pytest
from pydantic import TypeAdapter

import realkit as rk
from realkit.base.files import Lines, write_atomically
from realkit.runs.store import Store
from realkit.sweeps.ids import cell_id

NUMBER = TypeAdapter(dict[str, int])
ROW = {"id": "0" * 16, "stage": "decode", "status": "ok"}
SETTINGS = {
    "model": "a", "sampler": "Euler", "prompt": "b", "negative": "", "seed": 0, "steps": 1,
    "guidance": 1.0, "width": 64, "height": 64,
}  # fmt: skip


def cell(number: int, batch: int) -> dict:
    name = f"{number:016x}"
    ids = {"latents": name, "decoded": name, "image": name}
    return {"id": cell_id(SETTINGS, name), "cell": SETTINGS, "ids": ids, "batch": batch}


def test_a_torn_line_is_not_read_and_is_cut_before_the_next(tmp_path):
    lines = Lines(tmp_path / "a.jsonl", NUMBER)
    lines.append([{"n": 1}, {"n": 2}])
    with lines.path.open("ab") as file:
        file.write(b'{"n": 3')
    assert [line["n"] for line in lines.read()] == [1, 2]
    lines.append([{"n": 4}])
    assert [line["n"] for line in lines.read()] == [1, 2, 4]


def test_a_file_holding_only_a_torn_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n"')
    assert Lines(path, NUMBER).read() == []
    Lines(path, NUMBER).append([{"n": 1}])
    assert Lines(path, NUMBER).read() == [{"n": 1}]


def test_no_nan_reaches_a_row(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Lines(tmp_path / "a.jsonl", NUMBER).append([{"n": float("nan")}])
    assert Lines(tmp_path / "a.jsonl", NUMBER).read() == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.png", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (
        tmp_path / "a.png"
    ).read_bytes() == b"old"


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(rk.RequestError, match="cannot be written"),
        Store(tmp_path / "file" / "out").writing(),
    ):
        pass


def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def write(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(rk.RequestError, match=r"No space left on device\. What is done is kept"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("line", ["123", "null", "{}", "[1]", '{"n": 1}', "[" * 100_000, "{"])
def test_a_line_that_is_no_record_is_named_with_its_number(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n\n" + line + "\n")
    with pytest.raises(rk.RequestError, match=r"rows\.jsonl line 3 is damaged"):
        Store(tmp_path).last_rows()


def test_blank_lines_are_nothing_and_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n\n  \n{"n": 2}\n')
    assert [line["n"] for line in Lines(tmp_path / "a.jsonl", NUMBER).read()] == [1, 2]
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(rk.RequestError, match=r"b\.jsonl' cannot be read: Is a directory"):
        Lines(tmp_path / "b.jsonl", NUMBER).read()


def test_of_a_cell_written_twice_the_first_counts(tmp_path):
    store = Store(tmp_path)
    store.cells.append([cell(0, 0), cell(1, 1), cell(0, 2)])
    assert [line["batch"] for line in store.cells.read()] == [0, 1]


def test_a_plan_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    """Killed while its cells are written, a run plans them again as if for the first time: part of
    a plan would be completed by other batches."""
    store = Store(tmp_path)
    lines = [cell(number, number) for number in range(4)]
    store.add_cells(lines[:2])
    kept = store.cells.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.add_cells(lines[2:])
    assert store.cells.path.read_bytes() == kept
    store.add_cells(lines[2:])
    assert store.cells.read() == lines


def test_records_nested_too_deep_are_damage(tmp_path):
    path = tmp_path / "a.jsonl"
    for depth, whole in ((99, True), (101, False), (100_000, False)):
        path.write_text('{"n": ' + "[" * depth + "]" * depth + "}\n")
        if whole:
            assert len(Lines(path, TypeAdapter(dict)).read()) == 1
        else:
            with pytest.raises(rk.RequestError, match=r"a\.jsonl line 1 is damaged"):
                Lines(path, TypeAdapter(dict)).read()
