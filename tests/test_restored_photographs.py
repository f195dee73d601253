"""The committed numbers of published upscalers on photographs, and the page that explains them."""

import csv
import re

import pandas as pd

from realkit.analysis.verdicts import restoration_verdict
from realkit.scorers.likeness import MEASURES
from tests.restored_photographs import BASELINE, COLUMNS, TABLE

PAGE = (TABLE.parent / "README.md").read_text(encoding="utf-8")


def table():
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(COLUMNS[2:], float))


def test_the_table_is_whole_and_says_what_made_it():
    frame = table()
    assert len(frame) == frame["upscaler"].nunique() * frame["picture"].nunique() == 24
    assert frame.notna().all(axis=None)
    for name in ("realkit", "torch", "spandrel", "weights", "cpu", "device"):
        assert frame[name].nunique() == 1 and frame[name][0]
    assert "/" not in TABLE.read_text(encoding="utf-8")  # no path of a machine


def test_the_page_says_what_the_table_holds():
    means = table().groupby("upscaler")[list(COLUMNS[2:])].mean()
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M)
    assert {name for name, *_ in rows} == set(means.index)
    for name, *figures in rows:
        measured = means.loc[name, ["psnr_db", "ssim", "sharpness", "colour_shift"]]
        for figure, value in zip(figures, measured, strict=True):
            digits = len(figure.partition(".")[2])
            assert abs(float(figure) - value) <= 0.51 * 10**-digits, (name, figure, value)


def test_the_sentences_follow_from_the_table():
    frame = table()
    left_out = {name: None for name in MEASURES if name not in frame}
    restored = frame.assign(status="ok", **left_out)
    verdicts = restoration_verdict(restored, BASELINE).set_index("upscaler")
    psnr = verdicts[verdicts["measure"] == "psnr_db"].loc["RealESRGAN_x4plus"]
    assert f"{-psnr['gain']:.2f} dB ({-psnr['high']:.2f} to {-psnr['low']:.2f})" in PAGE
    for name in ("RealESRGAN_x4plus", "realesr-animevideov3"):
        words = verdicts.loc[name].set_index("measure")["verdict"]
        assert set(words[["psnr_db", "ssim", "colour_shift"]]) == {"worse"}
        assert words["sharpness"] == "better"
    shifts = frame.set_index("upscaler")["mean_shift"]
    gan = shifts["RealESRGAN_x4plus"]
    assert f"{gan.min():.1f} to\n{gan.max():+.1f} of 255" in PAGE
    assert (gan < 0).sum() == 5 and (gan.abs() > 2).sum() == 3
    assert shifts[BASELINE].abs().max() < 0.2
    photographs = {name.partition(".")[0] for name in frame["picture"]}
    assert all(f"| {name} | " in PAGE for name in photographs)
