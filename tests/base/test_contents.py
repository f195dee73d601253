import io
import json
import pickle
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import save

import realkit as rk
from realkit.base import contents
from realkit.weights import resolve
from realkit.weights.pickles import converted, is_pickle, reading_pickles

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2132626066\n"


def torchs(tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def packed():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.safetensors", b"x")
    return file.getvalue()


def picture():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


WRONG = {
    "page": (b"\n<!DOCTYPE html><html><head><title>Login", "it is a web page (HTML): the address"),
    "page in capitals": (b"<HTML><body>", "it is a web page (HTML)"),
    "pointer": (POINTER, "it is a Git LFS pointer, not the file itself: run git lfs pull"),
    "archive": (packed(), "it is a zip archive: unpack it"),
    "nothing": (b"", "it is an empty file: download it again"),
    "error": (json.dumps({"error": "gated"}).encode(), "it is a JSON text, such as a server's"),
    "gguf": (b"GGUF\x03\0\0\0", "it is a GGUF file: take the model in .safetensors"),
    "picture": (picture(), "it is a picture: give a file of weights"),
    "gzip": (b"\x1f\x8b\x08\0", "it is a gzip archive: unpack it"),
}


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_something_else_says_what(name, ending, tmp_path, monkeypatch):
    data, says = WRONG[name]
    path = tmp_path / f"model{ending}"
    path.write_bytes(data)
    for allowed in ("", "1"):  # pickles: a page is no reason to allow them
        monkeypatch.setenv("REALKIT_ALLOW_PICKLE", allowed)
        with pytest.raises(rk.RequestError) as error:
            resolve.fetch(resolve.lock(str(path), weights=True))
        assert says in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("data", [torchs({"a": torch.zeros(2)}), pickle.dumps({"a": 1})])
def test_a_pickle_under_another_name_is_told(data, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(rk.RequestError, match=r"it is a pickled checkpoint: .* end in \.ckpt"):
        rk.load(str(path))


def test_safetensors_under_the_name_of_a_pickle_is_told(tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    path.write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(rk.RequestError, match=r"it is a safetensors file: rename it"):
        converted(path, "0" * 64)


def test_what_is_as_it_is_called_is_not_told(tmp_path):
    for name, data in {"a.safetensors": save({"a": torch.zeros(2)}), "b.ckpt": torchs({})}.items():
        (tmp_path / name).write_bytes(data)
    assert contents.mistaken(tmp_path / "a.safetensors", contents.SAFETENSORS) == ""
    assert contents.mistaken(tmp_path / "b.ckpt", contents.PICKLE) == ""
    (tmp_path / "c").write_bytes(b"\0\1\2nothing known")
    assert contents.mistaken(tmp_path / "c", contents.PICKLE) == ""
    assert contents.mistaken(tmp_path / "nowhere", contents.PICKLE) == ""


@pytest.mark.parametrize("name", ["a.SAFETENSORS", "a.SafeTensors", "b/c.SAFETENSORS"])
def test_the_case_of_an_ending_does_not_matter(name, tmp_path):
    assert not is_pickle(name)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(save({"a": torch.zeros(2)}))
    (tmp_path / "plain.safetensors").write_bytes(path.read_bytes())
    locked = resolve.lock(str(path), weights=True)
    assert locked.files == resolve.lock(str(tmp_path / "plain.safetensors")).files
    plain = resolve.fetch(locked)  # loaders judge by the ending, in small letters
    assert plain.suffix == ".safetensors" and plain.read_bytes() == path.read_bytes()


def test_a_pickle_in_capitals_is_a_pickle(tmp_path):
    path = tmp_path / "a.CKPT"
    path.write_bytes(torchs({"a": torch.ones(2)}))
    with pytest.raises(rk.RequestError, match="pickled checkpoints can run code"):
        resolve.lock(str(path))
    with reading_pickles():
        assert resolve.fetch(resolve.lock(str(path))).suffix == ".safetensors"


def test_an_upscaler_loads_by_a_name_in_capitals(tmp_path, weights):
    from realkit.rehearsal.scenes import render

    compact = weights / "compact-x4" / "model.safetensors"
    for name in ("X4.SAFETENSORS", "x4.safetensors"):
        (tmp_path / name).write_bytes(compact.read_bytes())
    small = render("a photo of a matte red cube on grass at noon", 1, 32)
    large = rk.upscale(small, str(tmp_path / "X4.SAFETENSORS"), to=128)
    plain = rk.upscale(small, str(tmp_path / "x4.safetensors"), to=128)
    assert large.tobytes() == plain.tobytes()


def test_sizes_are_told_in_the_unit_that_they_fill():
    from realkit.base.cache import readable

    told = [readable(size) for size in (0, 57, 2048, 3 * 2**19, 2**30, 300 * 2**30)]
    assert told == ["0 bytes", "57 bytes", "2.0 KiB", "1.5 MiB", "1.0 GiB", "300.0 GiB"]


def test_a_hub_file_may_end_in_capitals():
    from realkit.weights.reference import parse

    ref = parse("someone/some/thing.SAFETENSORS")
    assert (ref.kind, ref.file, ref.single) == ("hub", "thing.SAFETENSORS", True)
