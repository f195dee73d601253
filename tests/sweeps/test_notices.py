"""What of the prompts is not read is said once, with its number and the first as example."""

import realkit as rk
from realkit.models.lock import lock_model
from realkit.scorers.score import lock_scorer
from realkit.sweeps import notices
from realkit.sweeps.check import plan

LONG = "a red cube " * 40
ASKED = dict(
    models=["rehearsal/base", "rehearsal/xl"],
    prompts=["a cube", "a (red:1.3) cube", "a {red|blue} cube", LONG],
    negatives=["[grey]"],
    guidance=3.0,
    steps=1,
    samplers="Euler",
    scorers=["rehearsal/clip"],
)


def said(**settings):
    sweep = rk.Sweep(**{**ASKED, **settings})
    models = {name: lock_model(name) for name in sweep.models}
    return notices.unread(
        sweep.cells(), models, {name: lock_scorer(name) for name in sweep.scorers}
    )


def test_each_way_is_one_line_with_its_number_and_the_first_example():
    forms, cut, scored = said()
    assert forms == (
        "unread: 3 prompts with forms of the web interfaces, taken as plain words here: emphasis"
        " (red:1.3) in 'a (red:1.3) cube'"
    )
    assert cut.startswith(
        "unread: 1 prompt longer than a model reads: 45 of 122 tokens cut for rehearsal/base in"
    )
    assert scored.startswith(
        "unread: 1 prompt longer than a scorer reads: 90 tokens cut for rehearsal/clip in 'a red"
    )
    assert len(cut) < 200 and "\n" not in cut + forms + scored


def test_what_is_read_is_not_mentioned():
    assert said(prompts="a cube", negatives="grey") == []
    assert said(prompts="a cube", negatives="[grey]", guidance=1.0) == []
    assert len(said(prompts=LONG, negatives="", scorers=["colour-cast"])) == 1


def test_the_plan_says_it_and_nothing_else_changes():
    plain, more = plan(rk.Sweep(**ASKED | {"negatives": "grey"})), plan(rk.Sweep(**ASKED))
    assert more.splitlines()[:3] == plain.splitlines()[:3]
    assert [line.split(":")[0] for line in more.splitlines()[3:]] == ["unread"] * 3


def test_a_run_says_it_once_and_the_table_holds_it(tmp_path, capsys):
    asked = {**ASKED, "models": "rehearsal/base", "prompts": [*ASKED["prompts"][:2], LONG]}
    table = rk.run(rk.Sweep(**asked, size=64), tmp_path / "out").table()
    assert capsys.readouterr().err.count("unread:") == 3
    assert list(table["unread"]) == [
        "negative: emphasis [grey]",
        "emphasis (red:1.3); negative: emphasis [grey]",
        "45 of 122 tokens cut; negative: emphasis [grey]",
    ]
    assert list(table["truncated_tokens"]) == [0, 0, 45]
    assert list(table["score_cut_tokens"].fillna(0)) == [0, 0, 90]
    rows = [row for row in rk.read(tmp_path / "out").store.rows.read() if "cut" in row]
    assert [(row["stage"], row["cut"]) for row in rows] == [("score", 90)]
    again = rk.read(tmp_path / "out").table()
    assert list(again["unread"]) == list(table["unread"])


def test_a_call_says_it_once(capsys):
    model, words = rk.load("rehearsal/base"), "a (blue) cube " * 30
    image = model(words, sampler="Euler", steps=1, size=64)
    model(words, sampler="Euler", steps=1, size=64, seed=1)
    rk.score(image, words, "rehearsal/clip")
    rk.upscale(image, "rehearsal/redraw", 128, "a [blue] cube", steps=2, strength=0.5)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" in 'a ")[0] for line in said] == [
        "unread: 1 prompt with forms of the web interfaces, taken as plain words here: emphasis"
        " (blue)",
        "unread: 1 prompt longer than a model reads: 75 of 152 tokens cut for rehearsal/base",
        "unread: 120 tokens cut for rehearsal/clip",
        "unread: 1 prompt with forms of the web interfaces, taken as plain words here: emphasis"
        " [blue]",
    ]


def test_generate_says_it(tmp_path):
    from click.testing import CliRunner

    from realkit.apps.cli.main import main

    out = str(tmp_path / "a.png")
    command = ["generate", "a (red) cube", "--steps", "1", "--size", "64", "--out", out]
    result = CliRunner().invoke(main, [*command, "--sampler", "Euler"])
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("unread: 1 prompt with forms") == 1
