import io

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from realkit.base.pictures import of_other_endings, plain
from realkit.sweeps import photographs


def grey16(seen: int | None) -> Image.Image:
    """A 16-bit grey PNG whose tRNS chunk makes one level transparent."""
    levels = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    file = io.BytesIO()
    more = {} if seen is None else {"transparency": seen}
    Image.fromarray(levels).save(file, "PNG", **more)
    return Image.open(io.BytesIO(file.getvalue()))


def test_16_bit_grey_keeps_the_transparency_of_its_trns_chunk():
    image = plain(grey16(1600))
    alpha = np.asarray(image)[..., 3]
    assert image.mode == "RGBA" and np.argwhere(alpha == 0).tolist() == [[1, 36]]  # 1600 / 16
    assert np.array_equal(np.asarray(image)[..., :3], np.asarray(plain(grey16(None))))
    assert plain(grey16(None)).mode == "RGB" and plain(grey16(3)).mode == "RGBA"


@pytest.mark.parametrize("name", ["lanczos", "rehearsal/compact-x4"])
def test_16_bit_grey_is_upscaled_with_its_transparency(name):
    large = rk.upscale(grey16(1600), name, to=128)
    assert large.mode == "RGBA"
    alpha = np.asarray(large)[..., 3]
    assert alpha[3, 73] < 128 and alpha[64:].min() == 255


def test_pictures_that_are_left_out_for_their_endings_are_said(tmp_path, capsys):
    for name in ("a.png", "b.jpg", "c.heic", "d.GIF", "e.jp2", "notes.txt", ".hidden.gif"):
        (tmp_path / name).write_bytes(name.encode())
    assert set(photographs.lock(str(tmp_path))) == {"a.png", "b.jpg"}
    assert "3 pictures of other endings left out (.gif, .heic, .jp2)" in capsys.readouterr().err
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).unlink()
    with pytest.raises(rk.RequestError, match=r"holds 0 .*; 3 pictures of other endings"):
        photographs.lock(str(tmp_path))
    assert photographs.count(str(tmp_path)) == 0 and photographs.count(None) == 0
    assert of_other_endings([tmp_path / "a.txt", tmp_path / "b.png"], [".png"]) == ""
