"""Pickled checkpoints: refused, or read without running anything."""

import errno
import os
import pathlib
import pickle
import shutil
import subprocess

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import realkit as rk
from realkit.base import cache as cache_module
from realkit.base.cache import CACHE, SPARE, sha256
from realkit.weights import resolve
from realkit.weights.pickles import ALLOW_PICKLE, converted


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
        (b"", "is damaged: fetch it again"),
        (b"<!DOCTYPE html>", "holds more than tensors, or is damaged: take"),
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
            r"^Checkpoint 'm\.ckpt' as \.safetensors needs 0\.0 GiB and 0\.2 to spare, '.*' has"
            r" 0\.2 GiB free: make room, or set"
        ),
    ):
        converted(large, "0" * 64)
    assert not list((cache / "converted").iterdir())


FULL = (
    r"^Checkpoint 'm\.ckpt' as \.safetensors cannot be written to '.*': the disk is full, it needs"
    r" 0\.0 GiB, '.*' has \d+\.\d GiB free: make room, or set "
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
