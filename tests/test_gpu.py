"""The book-keeping of `make gpu`: a part that fails is a row, and time that is up is said."""

import csv

from tests.gpu import COLUMNS, Results, file_name
from tests.gpu_pack import LEFT_OUT, ROOT, _ignored


def rows(results: Results) -> list[dict[str, str]]:
    with results.path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_case_is_a_row_and_none_ends_the_part(tmp_path):
    def cases():
        yield {"case": "near"}, lambda: {"apart": 0.5, "allowed": 1.0}
        yield {"case": "far"}, lambda: {"apart": 1.5, "allowed": 1.0}
        yield {"case": "not a number"}, lambda: {"apart": float("nan"), "allowed": 1.0}
        yield {"case": "broken"}, lambda: 1 / 0
        yield {"case": "left out"}, lambda: {"status": "skipped", "note": "needs a card"}
        yield {"case": "told"}, lambda: {"note": "x"}
        raise OSError("no more cases")

    results = Results(tmp_path / "gpu" / "a.csv", budget_s=60)
    assert results.run("part", cases())
    found = rows(results)
    assert list(found[0]) == list(COLUMNS) and {row["part"] for row in found} == {"part"}
    assert [row["status"] for row in found] == [
        "ok", "differs", "differs", "failed", "skipped", "ok", "failed",
    ]  # fmt: skip
    assert found[3]["note"] == "ZeroDivisionError: division by zero"
    assert found[6]["note"] == "OSError: no more cases"


def test_what_the_time_does_not_allow_is_said(tmp_path):
    results = Results(tmp_path / "a.csv", budget_s=0)
    assert results.run("part", iter([({"case": "a"}, lambda: 1 / 0)]))
    assert [(row["status"], row["note"]) for row in rows(results)] == [
        ("skipped", "the time is up")
    ]


def test_the_file_is_named_after_the_card_or_says_that_there_was_none():
    facts = {"gpu": "NVIDIA H200", "cuda": "13.0", "versions": {"torch": "2.11.0+cu130"}}
    assert file_name(facts) == "gpu-nvidia-h200-torch2.11.0-cu130.csv"
    facts = {"cpu": "AMD EPYC", "versions": {"torch": "2.11.0"}}
    assert file_name(facts) == "gpu-none-amd-epyc-torch2.11.0.csv"


def test_the_pack_leaves_out_the_large_weights_and_nothing_else():
    weights = ROOT / "realkit" / "rehearsal" / "weights"
    names = [path.name for path in weights.iterdir()]
    assert _ignored(str(weights), names) == set(LEFT_OUT) < set(names)
    assert _ignored(str(ROOT / "tests"), ["base", "xl", "a.pyc"]) == {"a.pyc"}
