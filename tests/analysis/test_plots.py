import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

import realkit as rk


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_grid_shows_every_place(finished):
    figure = rk.plots.grid(
        finished.table(), rows="prompt", cols="sampler", caption="rehearsal/clip"
    )
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 4 and [axis.get_title() for axis in figure.axes[:2]] == [
        "Euler",
        "Euler a",
    ]


def test_a_failed_cell_is_shown_as_failed(finished):
    df = finished.table()
    df.loc[0, "status"] = "failed"
    figure = rk.plots.grid(df, rows="prompt", cols="sampler")
    assert any(text.get_text() == "failed" for axis in figure.axes for text in axis.texts)


def test_pareto_draws_the_front_and_refuses_mixed_batches(finished):
    df = finished.table()
    figure = rk.plots.pareto(df, x="seconds", y="rehearsal/clip")
    assert figure.axes[0].get_legend_handles_labels()[1] == [
        "front",
        "Euler",
        "Euler a",
        "rehearsal/base",
        "perhaps on the front",  # two prompts
    ]
    df.loc[0, "batch"] = 1
    with pytest.raises(rk.RequestError, match="different batch"):
        rk.plots.pareto(df, x="seconds", y="rehearsal/clip")


@pytest.mark.parametrize(
    "call", [lambda df: rk.plots.grid(df, rows="nope"), lambda df: rk.plots.pareto(df, y="clip")]
)
def test_a_missing_column_is_named(finished, call):
    with pytest.raises(rk.RequestError, match="The table has no column"):
        call(finished.table())


@pytest.fixture
def invented(tmp_path):
    """A table of two finished cells, one of them without an upscaler, and their pictures."""
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    df = pd.DataFrame(
        {
            "model": "m",
            "sampler": ["Euler", "DDIM"],
            "prompt": "a cube",
            "upscaler": pd.array([None, "lanczos"], "string"),
            "status": "ok",
        }
        | {"image": ["a.png", "b.png"], "seconds": [1.0, 2.0], "clip": [20.0, 30.0]}
    )
    df.attrs["folder"] = str(tmp_path)
    return df


def test_native_cells_are_shown_and_named(invented):
    figure = rk.plots.grid(invented, rows="model", cols="upscaler")
    assert [(axis.get_title(), len(axis.images)) for axis in figure.axes] == [
        ("native", 1),
        ("lanczos", 1),
    ]
    legend = rk.plots.pareto(invented, by="upscaler").axes[0].get_legend_handles_labels()[1]
    assert legend[:4] == ["front", "native", "lanczos", "m"]


def test_a_missing_score_prints_nothing_and_a_dollar_is_a_dollar(invented):
    df = invented.assign(clip=[None, 30.0], prompt="it costs $5 or $6", model="$a$")
    figure = rk.plots.grid(df, caption="clip")
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "30.0"]
    figure.canvas.draw()
    assert (
        figure.get_suptitle() == r"it costs \$5 or \$6" and figure.axes[0].get_ylabel() == r"\$a\$"
    )
    assert rk.plots.grid(invented.assign(clip=None), caption="clip").axes[0].get_xlabel() == ""


def test_pareto_keeps_every_hue_and_name_in_the_legend(invented):
    df = pd.concat(
        [invented.assign(model=f"m{n}", sampler=f"s{n}", seconds=float(n)) for n in range(30)]
    )
    figure = rk.plots.pareto(df)
    figure.canvas.draw()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    names = ["front", *(f"s{n}" for n in range(30)), *(f"m{n}" for n in range(30))]
    assert labels == [*names, "perhaps on the front"]
    assert (
        len({tuple(handle.get_color()) for handle in handles[1:31]})
        == len({handle.get_marker() for handle in handles[31:61]})
        == 30
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda df: df.iloc[:0], "has no rows"),
        (lambda df: df.drop(columns="image"), "no column 'image'"),
        (lambda df: df.drop(columns="status"), "no column 'status'"),
        (
            lambda df: df.assign(image="c.png"),
            r"c\.png' of the table cannot be read: .*No such file",
        ),
        (lambda df: df.assign(clip="good"), "'clip' holds no numbers"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_one_line(invented, change, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        rk.plots.grid(change(invented), caption="clip")
    assert "\n" not in str(error.value)


def test_pictures_of_an_unknown_folder_and_words_on_an_axis_are_refused(invented):
    with pytest.raises(rk.RequestError, match="'prompt' holds no numbers"):
        rk.plots.pareto(invented, y="prompt")
    del invented.attrs["folder"]
    with pytest.raises(rk.RequestError, match="pass folder="):
        rk.plots.grid(invented)


def test_pareto_by_one_column_names_each_once_and_takes_another_unit(invented):
    figure = rk.plots.pareto(
        invented.rename(columns={"prompt": "picture"}), by="sampler", hue="sampler", unit="picture"
    )
    assert (
        figure.axes[0].get_legend_handles_labels()[1][:3] == ["front", "Euler", "DDIM"]
        and "over pictures" in figure.axes[0].get_ylabel()
    )


@pytest.fixture
def ragged(tmp_path):
    """A table of 2 models, 2 samplers, 6 prompts and 2 seeds: two cells failed, one is pending, two
    lack their score, and one place of model and sampler lacks all of its cells."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    axes = [["m", "n"], ["Euler", "DDIM"], [f"prompt {n}" for n in range(6)], [0, 1]]
    index = pd.MultiIndex.from_product(axes, names=["model", "sampler", "prompt", "seed"])
    df = index.to_frame(index=False)
    df = df.assign(status="ok", image="a.png", steps=20, batch=2, seconds=1.5)
    df["clip"] = [20 + n % 7 + (df["sampler"][n] == "DDIM") for n in range(len(df))]
    for place, status in ((0, "failed"), (1, "failed"), (14, "pending")):
        df.loc[place, ["status", "image", "clip", "seconds"]] = [status, None, None, None]
    df.loc[[12, 13], "clip"] = None
    df = df[~((df["model"] == "n") & (df["sampler"] == "DDIM"))]
    df.attrs["folder"] = str(tmp_path)
    return df


def notes(figure):
    return figure.get_supxlabel().split("\n")


def test_a_grid_says_what_it_shows_and_what_it_does_not(ragged):
    figure = rk.plots.grid(ragged, caption="clip", side=4)
    assert notes(figure) == [
        "Under each picture: clip (higher is better); 1 picture without.",
        "No picture: 1 failed. Grey: no cell in 1 place.",
        "Each place shows its first cell (prompt=prompt 0, seed=0); 33 not shown, of them 1 failed,"
        " 1 pending.",
    ]
    assert figure.axes[0].texts[-1].get_text() == "sampler →\nmodel ↓"
    # As the README's: settings of the cells shown, where all of them agree and where not.
    ragged = ragged[(ragged["status"] == "ok") & ragged["clip"].notna()]
    assert notes(rk.plots.grid(ragged, rows="prompt", side=4))[-1] == (
        "Each place shows its first cell (model=m, n, seed=0, 1); 20 not shown."
    )
    one = ragged.drop_duplicates(["model", "sampler"])
    assert notes(rk.plots.grid(one[one["model"] == "m"])) == [""]  # nothing is left out


def test_a_trade_off_says_what_it_leaves_out_and_pools(ragged):
    assert notes(rk.plots.pareto(ragged)) == [
        "Left out: 5 of 36 cells: 2 failed, 1 pending, 2 without a number in seconds or clip.",
        "Each point pools 6 prompts; seed 0, 1.",
    ]
    assert notes(rk.plots.pareto(ragged, by="model"))[1:] == [
        "Each point pools 6 prompts; seed 0, 1.",
        "1 of 2 also pool sampler Euler, DDIM.",
    ]
    whole = ragged[ragged["clip"].notna() & (ragged["seed"] == 1) & (ragged["model"] == "n")]
    assert notes(rk.plots.pareto(whole)) == ["Each point pools 6 prompts."]


def test_a_figure_says_how_much_of_the_run_was_filtered_away(finished):
    df = finished.table()
    part = df[df["seed"] == 0].assign(scene="s")
    figures = [rk.plots.grid(part, rows="prompt"), rk.plots.pareto(part, y="rehearsal/clip")]
    for figure in figures:
        assert notes(figure)[-1] == "Drawn from 4 of the run's 8 cells."
    assert "Drawn" not in rk.plots.grid(df).get_supxlabel()


def test_verdicts_say_what_they_leave_out(ragged):
    table = rk.compare(ragged[ragged["model"] == "m"], "sampler", ["clip", "seconds"])
    assert notes(rk.plots.verdicts(table)) == [
        "clip: 5 prompts; left out up to 3 cells of a pair, without a partner or value.",
        "seconds: 1 batch; left out up to 3 cells of a pair, without a partner or value.",
    ]
    wide = table.assign(effect=[0.5, None], low=[-9.0, None], high=[0.9, None])
    wide = pd.concat([wide.assign(metric="clip")] + 6 * [wide[:1].assign(low=0.1)])
    assert (
        "1 pair without a point could not be compared; 1 interval beyond the edge"
        in (notes(rk.plots.verdicts(wide))[0])
    )


def test_long_headers_and_titles_stay_within_the_figure(invented):
    """Pictures keep their size beside a prompt of 90 words, and every text is inside the figure."""
    words = " ".join(f"word{n}" for n in range(90))
    for df in (invented.assign(prompt=words), invented.assign(prompt=[words, f"{words} more"])):
        figure = rk.plots.grid(df, rows="prompt", caption="clip")
        figure.canvas.draw()
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()
        sides = [axis.get_window_extent().width / figure.dpi for axis in figure.axes]
        assert min(sides) > 1.1


def test_crops_show_one_region_of_all_sizes_where_most_happens():
    from PIL import Image

    truth = Image.new("RGB", (64, 48))
    truth.paste(Image.effect_noise((12, 12), 90).convert("RGB"), (40, 8))
    figure = rk.plots.crops(
        {"truth": truth, "small": truth.resize((16, 12)), "a$b": truth}, captions={"a$b": "9 dB"}
    )
    whole, *shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in (whole, *shown)] == [
        "the scene",
        "truth",
        "small",
        r"a\$b",
    ] and shown[-1].get_xlabel() == "9 dB"
    assert {(axis.get_xlim(), axis.get_ylim()) for axis in shown} == {((40, 52), (20, 8))}
    for wrong in ((0, 0, 65, 10), (5, 5, 5, 9)):
        with pytest.raises(rk.RequestError, match="within 64×48"):
            rk.plots.crops({"truth": truth}, wrong)
    with pytest.raises(rk.RequestError, match="No pictures to show"):
        rk.plots.crops({})


def test_pareto_draws_a_bar_over_prompts_and_none_for_one_prompt(invented):
    """The mean and its bar are over prompts, also where one prompt has more cells than others."""
    from realkit.base.statistics import mean_interval

    def ends(df):
        bars = rk.plots.pareto(df).axes[0].collections
        return [point[1] for bar in bars for segment in bar.get_segments() for point in segment]

    assert ends(invented) == []
    clip = [30.0] * 8 + [20.0, 21.0]
    df = pd.DataFrame({"prompt": ["a"] * 8 + ["b", "c"], "clip": clip})
    df = df.assign(model="m", sampler="Euler", status="ok", seconds=1.0)
    mean, low, high, _ = mean_interval([30.0, 20.0, 21.0])
    assert ends(df) == pytest.approx([low, high]) and mean == pytest.approx(71 / 3)


def test_crops_are_as_people_see_pictures():
    """Grey stays grey, 16 bits too: matplotlib paints one channel in false colours."""
    grey = Image.fromarray(np.full((32, 32), 32_768, np.uint16))
    figure = rk.plots.crops({"a": grey, "b": Image.new("L", (32, 32), 128)}, box=(0, 0, 8, 8))
    for axis in figure.axes[:3]:
        pixels = np.asarray(axis.images[0].get_array())
        assert pixels.shape[-1] == 3 and abs(float(pixels.mean()) - 128) <= 1
