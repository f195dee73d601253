import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import realkit as rk
from realkit.base.spreadsheets import read_csv, to_csv

WORDS = st.text(alphabet=st.sampled_from("=+-@'\t\r\n a1,\";－＠é"), min_size=1, max_size=6)


@pytest.mark.parametrize(
    "text, written",
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("a = b", "a = b"),
        ("'quoted' words", "'quoted' words"),
        ("-2.5e-3", "-2.5e-3"),
        ("", ""),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text, written):
    text_of_file = to_csv(pd.DataFrame({"prompt": [text], "n": [1]}))
    assert list(csv.reader(io.StringIO(text_of_file, newline="")))[1][0] == written


def test_numbers_stay_numbers_and_a_header_is_safe(tmp_path):
    frame = pd.DataFrame({"=score": [-1.5, float("nan")], "count": [-3, 4], "prompt": ["a", None]})
    path = tmp_path / "table.csv"
    path.write_text(to_csv(frame))
    assert path.read_text().splitlines()[:2] == ["'=score,count,prompt", "-1.5,-3,a"]
    back = read_csv(path)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)


@given(st.lists(WORDS, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_read_back_is_what_was_written(tmp_path_factory, texts):
    texts = ["x", *texts]  # a column of text, whatever numbers there are
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    path.write_bytes(to_csv(pd.DataFrame({"prompt": texts})).encode())
    assert [str(text) for text in read_csv(path)["prompt"]] == texts
    for cell in list(csv.reader(io.StringIO(path.read_text(), newline="")))[1:]:
        number = cell[0].lstrip("+-").replace(".", "").isdigit()
        assert number or cell[0][0] not in "=+-@\t\r\n－＠"


def test_the_tables_csv_of_a_run_is_safe_and_merges_as_it_was(tmp_path):
    from click.testing import CliRunner

    from realkit.apps.cli.main import main
    from realkit.apps.notebooks.outcome import table_of

    asked = dict(models="rehearsal/base", steps=1, size=64, samplers="Euler")
    prompts = ["=HYPERLINK(1)", "-a cube", "+1 a cone"]
    run = rk.run(rk.Sweep(**asked, prompts=prompts), tmp_path / "run")
    text = (tmp_path / "run" / "table.csv").read_text()
    assert "'=HYPERLINK(1)" in text and ",=HYPERLINK" not in text
    shown = CliRunner().invoke(main, ["table", str(tmp_path / "run"), "--csv"]).stdout
    assert "'=HYPERLINK(1)" in shown
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "table.csv").write_text(text)
    assert list(table_of(tmp_path / "alone")["prompt"]) == prompts == list(run.table()["prompt"])
