"""Pickled checkpoints: refused, or read without running anything."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

import realkit as rk
from realkit import downloads, hub
from realkit.pickled import converted


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


@pytest.mark.parametrize("wrap", [lambda harm: harm, lambda harm: {"state_dict": {"a": torch.zeros(2)}, "callbacks": harm}])
def test_a_malicious_pickle_fails_and_does_not_run(tmp_path, monkeypatch, wrap):
    path = tmp_path / "evil.ckpt"
    torch.save(wrap(Harm(tmp_path / "ran")), path)
    monkeypatch.setenv(hub.ALLOW_PICKLE, "1")
    with pytest.raises(rk.RequestError, match=r"'evil\.ckpt' holds more than tensors") as error:
        hub.fetch(hub.lock(str(path)))
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)
    pickle.loads(pickle.dumps(Harm(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()  # the same object does harm elsewhere


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_pickles_are_refused_unless_asked_for(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"a": torch.ones(3)}, path)
    for off in ("", "0"):
        monkeypatch.setenv(hub.ALLOW_PICKLE, off)
        with pytest.raises(rk.RequestError, match=f"set {hub.ALLOW_PICKLE}=1"):
            hub.lock(str(path))
    monkeypatch.setenv(hub.ALLOW_PICKLE, "1")
    made = hub.fetch(hub.lock(str(path)))
    assert made.suffix == ".safetensors" and torch.equal(load_file(made)["a"], torch.ones(3))


@pytest.mark.parametrize(
    "nest", [lambda t: t, lambda t: {"state_dict": t}, lambda t: {"params_ema": t}, lambda t: {"state_dict": t, "epoch": 3, "rate": torch.ones(())}]
)
def test_tensors_are_found_where_checkpoints_keep_them(tmp_path, nest):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4).half()}
    tensors["c"] = tensors["a"].T  # shares memory, not contiguous
    torch.save(nest(tensors), tmp_path / "m.ckpt")
    found = load_file(converted(tmp_path / "m.ckpt", downloads.sha256(tmp_path / "m.ckpt")))
    assert set(found) == set(tensors) and all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("content", [[1, 2], {"a": {"b": 1}}, {}])
def test_a_checkpoint_without_tensors_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "m.ckpt")
    with pytest.raises(rk.RequestError, match=r"'m\.ckpt' holds"):
        converted(tmp_path / "m.ckpt", "0" * 64)


def test_a_damaged_pickle_leaves_nothing_behind(tmp_path, cache):
    torch.save({"a": torch.ones(100)}, tmp_path / "m.ckpt")
    (tmp_path / "m.ckpt").write_bytes((tmp_path / "m.ckpt").read_bytes()[:-200])
    with pytest.raises(rk.RequestError, match="damaged"):
        converted(tmp_path / "m.ckpt", "0" * 64)
    assert not list((cache / "converted").iterdir())
