"""What the page of a notebook sweep says that it leaves out."""

import pandas as pd
from PIL import Image

from realkit.analysis.page import figures, not_shown, plain_value, summary, thumbnails


def test_a_summary_and_its_pictures_say_what_they_leave_out(tmp_path):
    rows = []
    for number in range(12):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        rows.append({"model": "m", "prompt": f"p{number % 3}", "seed": number // 3, "status": "ok",
                     "clip": 20.0 + number, "image": f"{number}.png"})  # fmt: skip
    table = pd.DataFrame(rows)
    whole = summary(table)
    assert whole["notes"] == ["Each row pools 3 prompts; seed 0, 1, 2, 3."]
    table.loc[[1, 2, 3], "status"] = ["failed", "failed", "pending"]
    table.loc[[0, 1], "clip"] = None
    assert summary(table)["notes"][0] == ("Left out: 2 failed, 1 pending; clip of 1 finished cell.")
    home = tmp_path / "entry"
    home.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8)).save(home / f"{number}.png")
    shown = thumbnails(table, tmp_path) + figures(home, tmp_path)
    assert not_shown(shown, 9, home) == "Shown: 8 of 9 pictures, 4 of 5 figures."
    (home / "4.png").unlink()
    assert not_shown(shown, 8, home) == ""


def test_a_page_pools_no_times_of_different_cards():
    table = pd.DataFrame({
        "model": ["m"] * 4, "sampler": ["Euler"] * 4, "status": ["ok"] * 4,
        "seconds": [8.0, 8.2, 0.4, 0.5], "card": ["T4", "T4", "H100", "H100"],
    })  # fmt: skip
    ((_, count, marked),) = summary(plain_value(table))["rows"]
    assert count == 4 and [text for text, _ in marked] == ["–"]
