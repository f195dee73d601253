"""The slider between two pictures, in JupyterLab."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import realkit as rk
from tests.browser import opened
from tests.jupyter import lab, run_all, write

SOURCE = """
import realkit as rk
from PIL import Image
pictures = {name: Image.new("RGB", (40, 30), name) for name in ("red", "blue", "lime")}
rk.before_after(pictures, "red", "blue", side=400)
"""
MIDDLE = """() => {
    const NAMES = {"255,0,0": "red", "0,0,255": "blue", "0,255,0": "lime", "255,255,255": "white"};
    const image = document.querySelector(".jp-OutputArea img");
    const canvas = document.createElement("canvas"), names = [];
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    if (!canvas.width) return [];  // a new one is being decoded
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const line = context.getImageData(0, 150, canvas.width, 1).data;
    for (let x = 0; x < canvas.width; x++)
        names.push(NAMES[line.slice(4 * x, 4 * x + 3)]);
    return names;
}"""


def row_of(page):
    """The colours of the picture's middle row: {name: pixels}."""
    names = page.evaluate(MIDDLE)
    return {name: names.count(name) for name in names}


@pytest.mark.browser
def test_the_slider_is_seen_and_moves(tmp_path, packages=None):
    """It shows its picture at once, follows arrow keys, the mouse and the lists of names."""
    home = tmp_path / "home"
    home.mkdir()
    write(home / "slider.ipynb", [SOURCE])
    with lab(home, packages) as address, opened() as (page, faults):
        run_all(page, address, "slider.ipynb")
        page.wait_for_selector(".jp-OutputArea img")
        page.wait_for_function("document.querySelector('.jp-OutputArea img').naturalWidth == 400")
        assert row_of(page) == {"red": 199, "white": 2, "blue": 199}
        handle = page.locator(".jp-OutputArea .noUi-handle, .jp-OutputArea .ui-slider-handle")
        handle.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        page.wait_for_function(f"({MIDDLE})().indexOf('blue') == 241")
        shape, track = handle.bounding_box(), page.locator(".jp-OutputArea img").bounding_box()
        assert abs(shape["x"] + shape["width"] / 2 - track["x"] - 240) < 8  # below the border
        page.mouse.move(shape["x"] + shape["width"] / 2, shape["y"] + shape["height"] / 2)
        page.mouse.down()
        page.mouse.move(track["x"] + 101, shape["y"] + 5, steps=5)
        page.mouse.up()
        page.wait_for_function(f"Math.abs(({MIDDLE})().indexOf('blue') - 101) < 8")
        page.locator(".jp-OutputArea select").nth(1).select_option("lime")
        page.wait_for_function(f"({MIDDLE})().includes('lime')")
        assert "blue" not in row_of(page) and "lime 40×30; shown at 400×300" in page.text_content(
            ".jp-OutputArea"
        )
        # JupyterLab 3 loads this environment's extensions too, which are built for 4, and says so.
        if packages is None:
            assert not [fault for fault in faults if not fault.startswith("Failed to load res")]


@pytest.mark.slow
@pytest.mark.browser
def test_the_slider_of_ipywidgets_7(tmp_path):
    """Colab has ipywidgets 7.7, whose front end is JupyterLab 3's."""
    packages = tmp_path / "packages"
    names = ["jupyterlab==3.6.*", "ipywidgets==7.7.*", "jupyterlab-widgets==1.1.*",
             "nbclassic", "ipython_genutils"]  # fmt: skip
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages]
    subprocess.run([*command, *names], check=True)
    test_the_slider_is_seen_and_moves(tmp_path, packages)


def test_any_mode_and_shape_is_joined_and_a_wrong_name_is_one_line():
    pictures = {mode: Image.new(mode, (30, 90)) for mode in ("L", "P", "RGBA", "1", "I;16")}
    pictures["thin"] = Image.new("RGB", (1, 2000))
    for name in pictures:
        widget = rk.before_after(pictures, "L", name, side=64)
        shown = Image.open(io.BytesIO(widget.children[1].value))
        assert shown.mode == "RGB" and shown.height == 64
    assert np.asarray(shown).shape == (64, 1, 3)
    with pytest.raises(rk.RequestError, match="No picture 'x': expected one of L, P"):
        rk.before_after(pictures, "L", "x")
    with pytest.raises(rk.RequestError, match="has no known white"):
        rk.before_after(pictures | {"f": Image.new("F", (2, 2))}, "L", "P")
