"""What stages load, as values; and which rows a batch leaves that fails."""

import pickle

import realkit as rk
from realkit.runs.engines import engine
from realkit.runs.jobs import Job, Planned, Tool
from realkit.sweeps.ids import Ids

SWEEP = {
    "samplers": "Euler", "prompts": "a photo of a matte red cube on grass at noon", "steps": 2,
    "size": 64,
    "upscalers": "sd-upscale", "target": 72, "strength": 0.5, "scorers": "colour-cast",
}  # fmt: skip


def test_a_tool_is_its_fields_and_its_label_is_for_people():
    tools = [
        Tool("model", "photos by ana"),
        Tool("upscaler", "photos", "ana"),
        Tool("model", "shot in float16"),
        Tool("model", "shot", dtype="float16"),
    ]
    assert len(set(tools)) == 4
    assert [str(tool) for tool in tools] == ["photos by ana"] * 2 + ["shot in float16"] * 2
    assert pickle.loads(pickle.dumps(tools)) == tools
    assert str(Tool("upscaler", "sd-upscale", "mine", "float16")) == "sd-upscale by mine in float16"


def test_model_folders_may_hold_any_word(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    base.pipe.save_pretrained("photos by ana")
    rk.load("rehearsal/studio").pipe.save_pretrained("shot in float16")
    models = ["photos by ana", "shot in float16"]
    frame = rk.run(SWEEP | {"models": models}, "out").table()
    assert list(frame.model) == models and set(frame.status) == {"ok"}, list(frame.error)
    assert set(frame.dtype) == {"float32"} and set(frame.image_width) == {72}


def test_each_failed_row_of_a_batch_names_its_own_source():
    """Two cells of a second leg, begun from different latents."""
    items = [
        Planned(None, Ids(f"end{n}", f"decoded{n}", f"image{n}", f"begun{n}"), 0) for n in (1, 2)
    ]
    job = Job(Tool("model", "xl"), ("end1", "end2"), tuple(items))
    failed = engine.failures("refine", job, OSError("the disk\nis gone"))
    rows = [(output.row["id"], output.row["parent"], output.row["error"]) for output in failed]
    assert rows == [("end1", "begun1", "the disk is gone"), ("end2", "begun2", "the disk is gone")]


def test_a_failed_score_says_of_which_scorer_and_prompt():
    facts = {"scorer": "clip", "prompt": "a cube"}
    job = Job(
        Tool("scorer", "clip"),
        ("score1",),
        (Planned(None, Ids("a", "b", "c"), 0),),
        facts={"score1": facts},
    )
    (failed,) = engine.failures("score", job, OSError("no"))
    assert failed.row.items() >= (facts | {"parent": "c", "status": "failed"}).items()
