import numpy as np
import pytest
from PIL import Image

import realkit as rk

NAMES = ["lanczos", "bicubic", "rehearsal/esrgan-x4"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "to", "made"),
    [((40, 30), 100, (100, 75)), ((33, 17), (64, 64), (64, 64)), ((16, 16), 64, (64, 64)), ((20, 10), 200, (200, 100)), ((1, 1), 5, (5, 5))],
)
def test_the_size_is_exact(name, size, to, made):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    assert rk.upscale(Image.fromarray(noise), name, to=to).size == made


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_become_rgb(mode):
    assert rk.upscale(Image.new(mode, (8, 8)), "rehearsal/esrgan-x4", to=32).mode == "RGB"


def test_the_network_beats_bicubic_on_held_out_scenes():
    from realkit.rehearsal import figures

    for floor, found in figures.esrgan(each=1).items():
        if floor != "pictures_each":
            assert found["gain"] >= 1.5, (floor, found)


@pytest.mark.parametrize("to", [0, -4, 2.5, (64,), (64, 0), "large"])
def test_a_bad_target_is_refused(to):
    with pytest.raises(rk.RequestError, match="Target size"):
        rk.upscale(Image.new("RGB", (8, 8)), "lanczos", to=to)


def test_weights_that_are_no_upscaler(tmp_path, weights):
    import shutil

    path = tmp_path / "vae.safetensors"
    shutil.copy(weights / "vae" / "diffusion_pytorch_model.safetensors", path)
    with pytest.raises(rk.RequestError, match="does not load"):
        rk.upscale(Image.new("RGB", (8, 8)), str(path), to=32)
    with pytest.raises(rk.RequestError, match="is not there"):
        rk.upscale(Image.new("RGB", (8, 8)), "none.safetensors", to=32)
