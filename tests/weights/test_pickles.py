"""Pickled checkpoints: refused, or read without running anything."""

import codecs
import errno
import os
import pathlib
import pickle
import shutil
import subprocess
import zipfile
from itertools import product

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import realkit as rk
from realkit.base import cache as cache_module
from realkit.base.cache import CACHE, SPARE, sha256
from realkit.weights import resolve
from realkit.weights.pickles import ALLOW_PICKLE, converted
from tests.cuts import thinned


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REALKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Harm:
    """Leaves a file behind when it is unpickled by an unpickler that runs what it reads."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "wrap",
    [lambda harm: harm, lambda harm: {"state_dict": {"a": torch.zeros(2)}, "callbacks": harm}],
)
def test_a_malicious_pickle_fails_and_does_not_run(tmp_path, monkeypatch, wrap):
    path = tmp_path / "evil.ckpt"
    torch.save(wrap(Harm(tmp_path / "ran")), path)
    monkeypatch.setenv(ALLOW_PICKLE, "1")
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^Checkpoint 'evil\.ckpt' holds more than tensors \(refused: \w+\.mkdir\): take a"
            r" \.safetensors file$"
        ),
    ) as error:
        resolve.fetch(resolve.lock(str(path)))
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)
    pickle.loads(pickle.dumps(Harm(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()  # the same object does harm elsewhere


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_pickles_are_refused_unless_asked_for(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"a": torch.ones(3)}, path)
    for off in ("", "0"):
        monkeypatch.setenv(ALLOW_PICKLE, off)
        with pytest.raises(rk.RequestError, match=f"set {ALLOW_PICKLE}=1"):
            resolve.lock(str(path))
    monkeypatch.setenv(ALLOW_PICKLE, "1")
    made = resolve.fetch(resolve.lock(str(path)))
    assert made.suffix == ".safetensors" and torch.equal(load_file(made)["a"], torch.ones(3))


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: t,
        lambda t: {"state_dict": t},
        lambda t: {"params_ema": t},
        lambda t: {"params-ema": t, "iteration": 5},
        lambda t: {"net": t, "epoch": 3},
        lambda t: {"model_state_dict": t, "optimizer": {}},
        lambda t: {"weights of a name nobody knows": t},
        lambda t: {"state_dict": t, "epoch": 3, "rate": torch.ones(())},
    ],
)
def test_tensors_are_found_where_checkpoints_keep_them(tmp_path, nest):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4).half()}
    tensors["c"] = tensors["a"].T  # shares memory, not contiguous
    torch.save(nest(tensors), tmp_path / "m.ckpt")
    found = load_file(converted(tmp_path / "m.ckpt", sha256(tmp_path / "m.ckpt")))
    assert set(found) == set(tensors) and all(
        torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype
        for name in tensors
    )


@pytest.mark.parametrize("content", [[1, 2], {"a": {"b": 1}}, {}])
def test_a_checkpoint_without_tensors_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "m.ckpt")
    with pytest.raises(rk.RequestError, match=r"'m\.ckpt' holds"):
        converted(tmp_path / "m.ckpt", "0" * 64)


def test_a_damaged_pickle_leaves_nothing_behind(tmp_path, cache):
    torch.save({"a": torch.ones(100)}, tmp_path / "m.ckpt")
    (tmp_path / "m.ckpt").write_bytes((tmp_path / "m.ckpt").read_bytes()[:-200])
    with pytest.raises(
        rk.RequestError,
        match=r"^Checkpoint 'm\.ckpt' is damaged: fetch it again, or take a \.safetensors file$",
    ):
        converted(tmp_path / "m.ckpt", "0" * 64)
    assert not list((cache / "converted").iterdir())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no pickled checkpoint: it is an empty file: download it again"),
        (b"<!DOCTYPE html>", r"is no pickled checkpoint: it is a web page"),
        (pickle.dumps(Harm("ran"), 2), r"holds more than tensors \(refused: \w+\.mkdir\)"),
    ],
)
def test_what_is_no_checkpoint_at_all(tmp_path, content, says):
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(rk.RequestError, match=rf"^Checkpoint 'm\.ckpt' {says}") as error:
        converted(tmp_path / "m.ckpt", "0" * 64)
    assert "torch" not in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.parametrize("held", [pathlib.PurePosixPath("x"), torch.nn.Linear(2, 2)])
def test_torchs_advice_to_read_it_unrestricted_is_not_passed_on(tmp_path, held):
    torch.save({"a": torch.ones(2), "b": held}, tmp_path / "m.ckpt")
    with pytest.raises(
        rk.RequestError,
        match=(
            r"holds more than tensors \(refused: (pathlib|torch\.nn)[\w.]+\): take a \.safetensors"
            r" file$"
        ),
    ):
        converted(tmp_path / "m.ckpt", "0" * 64)


def test_a_checkpoint_that_holds_itself(tmp_path):
    held = {"epoch": 1}
    held["model"] = held
    torch.save(held, tmp_path / "m.ckpt")
    with pytest.raises(rk.RequestError, match="holds no tensors under any known name"):
        converted(tmp_path / "m.ckpt", "0" * 64)


def test_a_state_without_tensors_is_not_converted(tmp_path, cache):
    torch.save({"state_dict": {"epoch": 1}, "rate": torch.ones(())}, tmp_path / "m.ckpt")
    with pytest.raises(rk.RequestError, match="holds no tensors under any known name"):
        converted(tmp_path / "m.ckpt", "0" * 64)
    assert not list((cache / "converted").iterdir())


@pytest.fixture
def large(tmp_path):
    torch.save({"a": torch.ones(1 << 20)}, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_no_room_is_said_before_anything_is_written(large, cache, monkeypatch):
    usage = shutil.disk_usage(large.parent)._replace(free=SPARE)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^Checkpoint 'm\.ckpt' as \.safetensors needs \S+ MiB and 200\.0 MiB to spare,"
            r" '.*' has 200\.0 MiB free: make room, or set"
        ),
    ):
        converted(large, "0" * 64)
    assert not list((cache / "converted").iterdir())


FULL = (
    r"^Checkpoint 'm\.ckpt' as \.safetensors cannot be written to '.*': the disk is full, it needs"
    r" \d+\.\d MiB, '.*' has \d+\.\d [MG]iB free: make room, or set "
)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_while_it_is_written(large, cache, monkeypatch, error):
    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fails)
    with pytest.raises(rk.RequestError, match=FULL) as said:
        converted(large, "0" * 64)
    assert "\n" not in str(said.value) and not list((cache / "converted").iterdir())


def test_a_disk_that_is_full(large, tmp_path, monkeypatch):
    (disk := tmp_path / "disk").mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting needs root: the test above injects the same error")
    try:
        monkeypatch.setenv(CACHE, str(disk))
        monkeypatch.setattr(cache_module, "room", lambda *_: None)
        with pytest.raises(rk.RequestError, match=FULL):
            converted(large, "0" * 64)
        assert not list((disk / "converted").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# What is said → a checkpoint that asks for more memory than its file holds.
OVERSIZED = {
    "asks for 4.0 TB and is": {"a": torch.zeros(1).expand(10**6, 10**6)},
    "asks for 4.0 GB and is": {str(n): torch.zeros(1).expand(10**3, 10**4) for n in range(100)},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("says", OVERSIZED)
def test_a_pickle_that_asks_for_more_than_its_file_is_refused_at_once(
    tmp_path, monkeypatch, says, legacy
):
    path = tmp_path / "bomb.ckpt"
    torch.save(OVERSIZED[says], path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setenv(ALLOW_PICKLE, "1")
    with pytest.raises(rk.RequestError, match=says):
        resolve.fetch(resolve.lock(str(path)))


def rewritten(path, old, new):
    """A checkpoint with other bytes in its pickle."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            assert old in content or not name.endswith(".pkl")
            archive.writestr(name, content.replace(old, new) if name.endswith(".pkl") else content)


class Call:
    """Pickles as a call of anything with these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# A tuple of two of one tuple, 64 levels deep: its hash takes 2⁶⁴ steps. Opcodes: a dictionary with
# it as a key, a set of it.
NESTED = b")" + b"2\x86" * 64


def test_storages_longer_than_their_files_are_refused(tmp_path):
    path = tmp_path / "short.ckpt"
    torch.save({"a": torch.zeros(300)}, path)
    rewritten(path, b"M,\x01", b"M,\xff")  # 300 → 65,324, the storage's length and the tensor's
    with pytest.raises(rk.RequestError, match=r"a storage of 261\.3 kB and holds 1\.2 kB"):
        converted(path, "0" * 64)


CALLS = [
    pickle.dumps({"a": Call(bytearray, 10**13)}, 2),
    pickle.dumps({"a": Call(torch.FloatTensor, 10**6, 10**6)}, 2),
    pickle.dumps({"a": Call(codecs.encode, Call(codecs.encode, "a", "hex"), "hex")}, 2),
    b"\x80\x02}" + NESTED + b"Ns.",
    b"\x80\x02cbuiltins\nset\n]" + NESTED + b"a\x85R.",
]


@pytest.mark.parametrize("content", CALLS, ids=range(len(CALLS)))
def test_calls_that_allocate_or_never_end_are_refused(tmp_path, content):
    path = tmp_path / "calls.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/version", "3")
    with pytest.raises(rk.RequestError, match=r"asks for|damaged|more than tensors"):
        converted(path, "0" * 64)


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(200_000_000))
    with pytest.raises(rk.RequestError, match=r"unpacks to 200\.0 MB and is 194\.\d kB long"):
        converted(path, "0" * 64)


# torch cannot read the old files that it writes of the last two
OF_BOTH = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
OF_ZIPS = [torch.uint16, torch.float8_e4m3fn]


FEW = [(torch.float16, False), (torch.bfloat16, True), (torch.float8_e4m3fn, False)]


@pytest.mark.parametrize(
    ("dtype", "legacy"),
    thinned([*product(OF_BOTH, (False, True)), *product(OF_ZIPS, (False,))], FEW),
)
def test_honest_tensors_of_every_kind_pass(tmp_path, dtype, legacy):
    one = torch.ones(4096, 4096 // dtype.itemsize).to(dtype)
    path = tmp_path / "honest.ckpt"
    content = {"a": one, "b": one, "c": one[:2].T, "d": torch.nn.Parameter(torch.ones(3)), 1: 2}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    made = load_file(converted(path, "0" * 64))
    assert sorted(made) == ["a", "b", "c", "d"]
    assert torch.equal(made["b"], one) and torch.equal(made["c"], one[:2].T)
