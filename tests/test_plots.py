import pytest

import realkit as rk


def test_the_grid_shows_every_place(finished):
    figure = rk.plots.grid(finished.table(), rows="prompt", cols="sampler", caption="rehearsal/clip")
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 4 and [axis.get_title() for axis in figure.axes[:2]] == ["Euler", "Euler a"]


def test_a_failed_cell_is_shown_as_failed(finished):
    df = finished.table()
    df.loc[0, "status"] = "failed"
    figure = rk.plots.grid(df, rows="prompt", cols="sampler")
    assert any(text.get_text() == "failed" for axis in figure.axes for text in axis.texts)


def test_pareto_draws_the_front_and_refuses_mixed_batches(finished):
    df = finished.table()
    figure = rk.plots.pareto(df, x="seconds", y="rehearsal/clip")
    assert figure.axes[0].get_legend_handles_labels()[1] == ["front", "Euler", "Euler a", "rehearsal/base"]
    df.loc[0, "batch"] = 1
    with pytest.raises(rk.RequestError, match="different batch"):
        rk.plots.pareto(df, x="seconds", y="rehearsal/clip")


@pytest.mark.parametrize("call", [lambda df: rk.plots.grid(df, rows="nope"), lambda df: rk.plots.pareto(df, y="clip")])
def test_a_missing_column_is_named(finished, call):
    with pytest.raises(rk.RequestError, match="The table has no column"):
        call(finished.table())
