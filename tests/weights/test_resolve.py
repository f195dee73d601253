import json
import struct
import time

import pytest

import realkit as rk
from realkit.models.lock import lock_model
from realkit.weights import pickles, resolve
from realkit.weights.lock import Lock


def test_the_fingerprint_is_of_contents_not_of_places(tmp_path, weights):
    import shutil

    shutil.copytree(weights / "vae", tmp_path / "elsewhere")
    assert (
        resolve.lock(str(tmp_path / "elsewhere")).fingerprint
        == resolve.lock("package:vae").fingerprint
    )
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    assert (
        resolve.lock(str(tmp_path / "elsewhere")).fingerprint
        != resolve.lock("package:vae").fingerprint
    )


def test_figures_beside_the_weights_change_no_id():
    assert "figures.json" not in resolve.lock("package:vae").files


def test_a_pickle_is_refused_unread(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(rk.RequestError, match=r"expected \.safetensors"):
        lock_model(str(path))


def packed(header, data=b"1234"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**changed):
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"12345",
        struct.pack("<Q", 2**60),
        packed(b"not json!!"),
        packed([]),
        packed(b'{"a":' + b"[" * 100_000),
        packed({"a": tensor(data_offsets=[0, "x"])}),
        packed({"a": tensor(), "b": tensor()}),
        packed({"a": tensor(shape=[2])}),
        packed({"a": tensor(dtype="X9")}),
        packed({"a": tensor()}, b"12"),
        packed({"a": tensor()}, b"12345"),
    ],
)
def test_a_bad_header_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(rk.RequestError, match="no valid safetensors header") as error:
        pickles.check_safetensors(path)
    assert "\n" not in str(error.value)


def test_weights_without_a_tensor_and_a_folder_named_like_weights(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(packed({"__metadata__": {"a": "b"}}, b""))
    with pytest.raises(rk.RequestError, match="holds no tensor"):
        pickles.check_safetensors(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(rk.RequestError, match="it is a folder"):
        pickles.check_safetensors(tmp_path / "b.safetensors")


def test_a_changed_file_is_named_and_the_old_one_back_is_fine(tmp_path):
    path, good = tmp_path / "unet" / "model.safetensors", packed({"a": tensor()})
    path.parent.mkdir()
    path.write_bytes(good)
    folder, file = resolve.lock(str(tmp_path)), resolve.lock(str(path))
    resolve.verify(folder)
    path.write_bytes(packed({"a": tensor()}, b"4321"))
    with pytest.raises(
        rk.RequestError,
        match=r"'unet/model\.safetensors' in .* has changed since this results folder was made",
    ):
        resolve.verify(folder)
    with pytest.raises(rk.RequestError, match="has changed since"):
        resolve.verify(file)
    path.write_bytes(good)
    resolve.verify(folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(rk.RequestError, match=r"'config\.json' in .* has changed"):
        resolve.verify(folder)
    path.unlink()
    with pytest.raises(rk.RequestError, match="no longer exists: restore it"):
        resolve.verify(file)


def test_pickled_weights_and_a_folder_of_configs_are_refused(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    assert resolve.lock(str(tmp_path)).files
    with pytest.raises(rk.RequestError, match="holds no weights"):
        resolve.lock(str(tmp_path), weights=True)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(packed({"a": tensor()}))
    (tmp_path / "vae" / "pytorch_model.bin").write_bytes(b"beside it lies a safe one")
    resolve.lock(str(tmp_path), weights=True)
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"cos")
    with pytest.raises(
        rk.RequestError, match=r"unet/diffusion_pytorch_model\.fp16\.bin' without a \.safetensors"
    ):
        resolve.lock(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds list"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": ' * 101 + "1" + "}" * 101, "nested more than 100 levels deep"),
        ('{"a": "' + "x" * 64_000_000 + '"}', "it has 64 MB, expected at most 64"),
        ("\udcff", "cannot be read as JSON"),
    ],
)
def test_a_config_that_is_no_json_object(tmp_path, text, says):
    (tmp_path / "scheduler.json").write_text(text, errors="surrogateescape")
    with pytest.raises(rk.RequestError, match=says):
        resolve.read_json(resolve.lock(str(tmp_path)), "scheduler.json")


def test_a_name_too_long_for_a_path_names_nothing():
    for name in ("a" * 5000, "a" * 5000 + ".safetensors", "~nobody-of-that-name/a.safetensors"):
        with pytest.raises(rk.RequestError, match="No such file or folder") as error:
            resolve.lock(name)
        assert len(str(error.value)) < 250
        with pytest.raises(rk.RequestError, match=r"Unknown upscaler|is not there"):
            rk.Sweep(models="rehearsal/base", prompts="a", upscalers=name, target=512)


def test_a_hub_id_without_a_network_is_one_line():
    with pytest.raises(
        rk.RequestError, match=r"Hub model 'someone/something' cannot be reached: "
    ) as error:
        lock_model("someone/something")
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_a_file_without_config(tmp_path, weights):
    with pytest.raises(rk.RequestError, match="holds no weights"):
        lock_model(str(tmp_path))
    with pytest.raises(rk.RequestError, match="holds an upscaler: give it as one, not as a model"):
        lock_model(str(weights / "esrgan-x4" / "model.safetensors"))


def test_a_folder_that_is_a_disk_is_refused_before_it_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr("realkit.weights.sources.disk.MOST_ENTRIES", 1_000)
    (tmp_path / "photos").mkdir()
    for number in range(1_000):
        (tmp_path / "photos" / f"{number}.json").touch()
    (tmp_path / "model.safetensors").write_bytes(packed({"a": tensor()}))
    began = time.perf_counter()
    with pytest.raises(rk.RequestError, match="holds more than 1,000 files and folders"):
        resolve.lock(str(tmp_path))
    for name in ("/", str(tmp_path.parent)):
        with pytest.raises(rk.RequestError):
            resolve.lock(name)
    assert time.perf_counter() - began < 5


def test_a_folder_of_too_many_bytes_is_refused_before_it_is_hashed(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(300 * 2**30)  # a hole: it takes no room
    with pytest.raises(rk.RequestError, match=r"holds 300\.0 GiB of weights and configs, expected"):
        resolve.lock(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/passwd", "a/../../b", "a//b", "", ".", "C:/x", "a\\b", "a\0b"]
)
def test_no_name_in_a_lock_leads_out_of_its_folder(name):
    with pytest.raises(rk.RequestError, match="expected a plain path below its folder"):
        Lock("owner/name", "hub", files={name: "0" * 64})


@pytest.mark.parametrize("sha", ["../../x", "", "0" * 63, "A" * 64, "0" * 64 + "\n"])
def test_no_hash_in_a_lock_is_anything_else(sha):
    with pytest.raises(rk.RequestError, match="expected 64 hexadecimal digits"):
        Lock("owner/name", "hub", files={"unet/config.json": sha})
