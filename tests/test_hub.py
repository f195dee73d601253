import struct

import pytest

import realkit as rk
from realkit import hub, models


def test_the_fingerprint_is_of_contents_not_of_places(tmp_path, weights):
    import shutil

    shutil.copytree(weights / "vae", tmp_path / "elsewhere")
    assert hub.lock(str(tmp_path / "elsewhere")).fingerprint == hub.lock("package:vae").fingerprint
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    assert hub.lock(str(tmp_path / "elsewhere")).fingerprint != hub.lock("package:vae").fingerprint


def test_figures_beside_the_weights_change_no_id():
    assert "figures.json" not in hub.lock("package:vae").files


def test_a_pickle_is_refused_unread(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(rk.RequestError, match=r"expected \.safetensors"):
        models.lock(str(path))


@pytest.mark.parametrize("content", [b"", b"12345", struct.pack("<Q", 10) + b"not json!!", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**60)])
def test_a_bad_header_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(rk.RequestError, match=r"no valid safetensors header|is \d+ bytes"):
        hub.check_safetensors(path)


def test_a_hub_id_without_a_network_is_one_line():
    with pytest.raises(rk.RequestError, match=r"Hub model 'someone/something' cannot be reached: ") as error:
        models.lock("someone/something")
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_a_file_without_config(tmp_path, weights):
    with pytest.raises(rk.RequestError, match="holds no weights"):
        models.lock(str(tmp_path))
    with pytest.raises(rk.RequestError, match="give its catalogue entry a `config` folder"):
        models.lock(str(weights / "esrgan-x4" / "model.safetensors"))
