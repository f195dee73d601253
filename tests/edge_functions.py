"""The public functions at their edges: right values of each argument, what a right result is, and
what is refused of {wrong type, missing, empty, read-only, not ours}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import realkit as rk
from realkit.base.door import plain
from realkit.base.pictures import target_size, upright
from realkit.scorers.table import SCORERS
from tests.edge_world import READ_ONLY, World, pictures, table

TRIALS = ("wrong type", "missing", "empty", "read-only", "not ours")
ENDINGS = (".png", ".jpg", ".webp")  # that pictures are saved in
NO_PATH = "it takes no path, and nothing of it is someone else's"
READS = "it only reads"
Arguments = dict[str, Any]


@dataclass
class Edge:
    """A function or method. `right` has values of each argument of which any combination is right;
    `judge` says whether a result is right for its arguments. An edge that is slow when all is right
    has a `gate`, an argument whose wrong values are refused at once. `trials` are the arguments to
    replace, or the reason why there is nothing to try."""

    call: Callable[..., Any]
    right: dict[str, list[Any]]
    judge: Callable[[Arguments, Any], bool]
    trials: dict[str, Arguments | str]
    gate: str | None = None


def _trials(wrong: Any, missing: Any, empty: Any, read_only: Any, not_ours: Any) -> dict[str, Any]:
    return dict(zip(TRIALS, (wrong, missing, empty, read_only, not_ours), strict=True))


def _folder(name: str, world: World, wrong: Any = 5, read_only: Any = READS) -> dict[str, Any]:
    """The trials of an argument that is a results folder to read."""
    return _trials(
        {name: wrong}, {name: world.path("nowhere")}, {name: world.path("nothing")}, read_only,
        {name: world.path("foreign")},
    )  # fmt: skip


def _table(name: str, world: World) -> dict[str, Any]:
    """The trials of an argument that is a table."""
    frame = table()
    return _trials(
        {name: [1, 2]}, {name: None}, {name: frame.iloc[:0]}, READS,
        {name: pd.DataFrame({"x": [1, 2], "y": ["a", "b"]})},
    )  # fmt: skip


def _picture(name: str, *, wrong: Any = "picture.png") -> dict[str, Any]:
    """The trials of an argument that is a picture."""
    of = pictures()
    return _trials({name: wrong}, {name: None}, {name: of["zero"]}, READS, {name: of["closed"]})


def _is(kind: Any) -> Callable[[Arguments, Any], bool]:
    return lambda arguments, result: isinstance(result, kind)


def _frame(arguments: Arguments, result: Any) -> bool:
    return isinstance(result, pd.DataFrame) and len(result) > 0


def _enlarged(arguments: Arguments, result: Any) -> bool:
    to, image = plain(arguments["to"]), arguments["image"]
    to = to if isinstance(to, int) else tuple(to)
    size = target_size(upright(image).size, to, arguments.get("fit", "crop"))
    return isinstance(result, Image.Image) and result.size == size


def _read(**given: Any) -> Any:
    return rk.read(**given).table()


def _required(**given: Any) -> Any:
    needs = [given.pop("need")] if "need" in given else []
    return rk.bootstrap.require(*needs, **given)


def _scored(**arguments: Any) -> Any:
    """Register a scorer, and take it out of the table again."""
    before = dict(SCORERS)
    function = rk.scorer(**arguments)(lambda image: float(np.asarray(image).mean()))
    for name in SCORERS.keys() - before.keys():
        SCORERS._entries.pop(name)
    return function


def _swept(**arguments: Any) -> Any:
    """The cells of a sweep of a few values; the YAML that says it, read again, means the same."""
    sweep = rk.Sweep(**arguments)
    assert len(sweep.cells()) >= 1
    assert sweep.describe()
    return sweep


def core(world: World) -> dict[str, Edge]:
    """Making, enlarging and scoring pictures."""
    sizes = [
        Image.effect_noise((32, 24), 50).convert(mode) for mode in ("RGB", "L", "RGBA", "CMYK")
    ]
    sweep = {"models": "rehearsal/base", "prompts": "a cube", "steps": 1, "size": 64}
    out = [world.path("out")]
    in_sys = {"out": READ_ONLY}
    return {
        "load": Edge(
            rk.load, {"name": ["rehearsal/base"], "device": ["cpu", None], "rung": [None]},
            _is(object), gate="name", trials=_trials(
                {"name": 5}, {"name": str(world.path("nowhere.safetensors"))},
                {"name": str(world.files["empty.safetensors"])}, READS,
                {"name": str(world.path("foreign"))},
            ),
        ),
        "run": Edge(
            rk.run, {"sweep": [sweep], "out": out, "batch": [None, 2], "device": ["cpu"]},
            _is(rk.Run), gate="sweep", trials=_trials(
                {"sweep": 5}, {"sweep": world.path("nowhere.yaml")},
                {"sweep": world.files["empty"]}, in_sys, {"out": world.path("picture.png")},
            ),
        ),
        "Sweep": Edge(
            _swept,
            {"models": ["rehearsal/base", ["rehearsal/turbo"]], "prompts": ["a", ("a", "b")],
             "samplers": ["Euler", None, ["Heun"]], "seeds": [2, [0, 3], np.arange(2)],
             "steps": [2, np.int64(3), [np.int32(2), 4]], "guidance": [5, np.float32(2.5), None],
             "size": [64, "64x72", (64, 72), np.int64(64)], "negatives": ["", None]},
            _is(rk.Sweep), trials=_trials(
                {"prompts": 5}, {"models": None}, {"prompts": []}, READS, {"photographs": 5}
            ),
        ),
        "upscale": Edge(
            rk.upscale,
            {"image": sizes, "name": ["lanczos", "bicubic"], "seed": [0, np.int64(3)],
             "to": [48, np.int32(40), (40, 40), [30, 20], np.array([30, 20])],
             "fit": ["crop", "keep"]},
            _enlarged, trials=_picture("image"),
        ),
        "save": Edge(
            rk.save, {"image": sizes, "path": [world.path(f"saved{end}") for end in ENDINGS],
                     "overwrite": [True]},
            lambda a, result: result == a["path"] and result.stat().st_size > 50,
            trials=_picture("image") | {"read-only": {"path": f"{READ_ONLY}/a.png"}},
        ),
        "info": Edge(
            rk.info, {"picture": [*sizes, world.path("picture.png"),
                                  str(world.path("picture.png"))]},
            lambda a, result: result["made_by"] != "" and result["width"] > 0,
            trials=_trials(
                {"picture": 5}, {"picture": world.path("nowhere")},
                {"picture": pictures()["zero"]}, READS, {"picture": world.files["binary"]},
            ),
        ),
        "canonical": Edge(
            rk.canonical, {"name": ["lanczos", "rehearsal/esrgan-x4 + lanczos"]},
            lambda a, result: rk.canonical(result) == result, trials=_trials(
                {"name": 5}, {"name": world.path("nowhere.pth")}, {"name": ""}, READS,
                {"name": "nobody's upscaler"},
            ),
        ),
        "score": Edge(
            rk.score, {"image": sizes, "prompt": ["a cube", ""], "scorers": ["colour-cast",
             ["colour-cast"], ("colour-cast",), np.array(["colour-cast"])]},
            lambda a, result: all(type(value) is float for value in result.values()),
            trials=_picture("image"),
        ),
        "scorer": Edge(
            _scored, {"name": ["mine"], "direction": ["higher", "lower"], "margin": [None, 1,
             np.float64(2)], "version": [1, np.int64(2)]},
            _is(object), trials=_trials(
                {"name": 5}, {"name": None}, {"direction": ""}, READS, {"name": "clip"}
            ),
        ),
    }  # fmt: skip


def folders(world: World) -> dict[str, Edge]:
    """Reading results, votes, and sweeps of notebooks."""
    run, out = [world.path("run"), str(world.path("run"))], world.path("out2")
    by = ["sampler", ["sampler"], np.array(["model", "sampler"])]
    return {
        "read": Edge(_read, {"folder": run}, _frame, trials=_folder("folder", world)),
        "Run": Edge(
            lambda **given: rk.Run(**given).table(), {"folder": run}, _is(pd.DataFrame),
            trials=_trials({"folder": 5}, {"folder": None}, {"folder": "\0"}, READS,
                           {"folder": world.files["cells.jsonl"].parent}),
        ),
        "sets": Edge(
            rk.sets, {"folder": run, "encoder": [None]}, _frame, trials=_folder("folder", world)
        ),
        "edits": Edge(
            rk.edits, {"folder": run, "suite": ["rehearsal-edits"]}, _frame,
            trials=_folder("folder", world),
        ),
        "vote": Edge(
            rk.vote, {"folder": run, "by": by, "count": [5, np.int64(4)], "seed": [0, np.int64(1)]},
            _is(object), trials=_folder("folder", world),
        ),
        "votes": Edge(
            rk.votes, {"folder": run, "by": by}, _frame, trials=_folder("folder", world)
        ),
        "sweep_notebooks": Edge(
            rk.sweep_notebooks, {"file": [{"notebook": "x.ipynb"}], "out": [out]}, _frame,
            gate="file", trials=_trials(
                {"file": 5}, {"file": world.path("nowhere.yaml")}, {"file": world.files["empty"]},
                {"out": READ_ONLY}, {"file": world.files["keys.yaml"]},
            ),
        ),
        "Ray": Edge(
            rk.Ray, {"address": [None, "auto"], "workers": [None, 2, np.int64(2)],
                     "num_gpus": [None, 1, np.float32(0.5)], "patience": [60, np.float64(1)]},
            _is(rk.Ray), trials=_trials(
                {"workers": "two"}, {"patience": None}, {"address": ""}, READS, {"address": "n"}
            ),
        ),
    }  # fmt: skip


def tables(world: World) -> dict[str, Edge]:
    """Verdicts, and figures of tables."""
    frame = [table()]
    by = ["sampler", ["sampler"], ("sampler",), np.array(["sampler"])]
    scene = {"a": Image.new("RGB", (16, 16), "red"), "b": Image.new("RGB", (32, 32), "blue")}
    verdicts = [rk.compare(frame[0], by="sampler", metric="colour-cast", margin=1)]
    mine = _trials(
        {"pictures": 5},
        {"pictures": None},
        {"pictures": {}},
        READS,
        {"pictures": {"a": pictures()["zero"], "b": pictures()["closed"]}},
    )
    return {
        "compare": Edge(
            rk.compare, {"df": [*frame, world.path("run")], "by": by, "confidence": [0.9,
             np.float32(0.95)], "metric": [None, "colour-cast"]},
            _frame, trials=_table("df", world),
        ),
        "aggregate": Edge(
            rk.aggregate, {"df": frame, "by": [*by, ["model", "steps"]]}, _frame,
            trials=_table("df", world),
        ),
        "trend": Edge(
            rk.trend, {"df": frame, "axis": ["steps"], "metric": [None, "colour-cast"],
                       "confidence": [0.95, np.float64(0.9)]}, _frame, trials=_table("df", world),
        ),
        "at_equal": Edge(
            rk.at_equal, {"df": frame, "by": by, "cost": ["seconds", "nfe"], "most": [None]},
            _frame, trials=_table("df", world),
        ),
        "before_after": Edge(
            rk.before_after, {"pictures": [scene], "before": ["a"], "after": ["b", "a"],
                              "side": [64, np.int64(32)]}, _is(object), trials=mine,
        ),
        "plots.grid": Edge(
            rk.plots.grid, {"df": [rk.read(world.path("run")).table()], "rows": ["model"],
             "cols": ["sampler"], "side": [1, np.float32(1.5)], "caption": [None, "colour-cast"]},
            _is(object), trials=_table("df", world),
        ),
        "plots.pareto": Edge(
            rk.plots.pareto, {"df": frame, "x": ["seconds", "nfe"], "y": ["colour-cast"],
                              "by": ["sampler"], "hue": ["model", "steps"]},
            _is(object), trials=_table("df", world),
        ),
        "plots.verdicts": Edge(
            rk.plots.verdicts, {"table": verdicts}, _is(object), trials=_table("table", world)
        ),
        "plots.crops": Edge(
            rk.plots.crops, {"pictures": [scene], "box": [None, (2, 2, 6, 6), np.arange(4)],
                             "across": [4, np.int64(2)], "side": [2, np.float64(1.5)]},
            _is(object), trials=mine,
        ),
        "verdicts.restoration_verdict": Edge(
            rk.verdicts.restoration_verdict, {"frame": [restored()], "baseline": ["bicubic"]},
            _frame, trials=_table("frame", world),
        ),
        "verdicts.check_baseline": Edge(
            rk.verdicts.check_baseline, {"frame": [restored()], "baseline": ["bicubic"]},
            _is(type(None)), trials=_table("frame", world),
        ),
    }  # fmt: skip


def restored() -> pd.DataFrame:
    """A table as `rk.fidelity.compare` leaves one."""
    rows = []
    for upscaler in ("bicubic", "lanczos"):
        for picture in range(7):
            row = {"upscaler": upscaler, "picture": f"p{picture}", "status": "ok", "error": None}
            row |= dict.fromkeys(("psnr_db", "psnr_shaved_db", "ssim", "sharpness"), 20.0 + picture)
            rows.append(row | {"colour_shift": 1.0, "lpips": np.nan})
    return pd.DataFrame(rows)


def wings(world: World) -> dict[str, Edge]:
    """The rehearsal world, fidelity, the sampler laboratory, a notebook's first step."""
    caption = {"caption": ["a red cube", "a photo of a matte blue sphere on grass at noon"]}
    seed, number = {"seed": [0, np.int64(4)]}, NO_PATH
    words = _trials(
        {"caption": 5}, {"caption": None}, {"caption": ""}, number, {"caption": "a castle"}
    )
    truths = [[("a", Image.effect_noise((32, 32), 50).convert("RGB"))]]
    import torch

    points = {"a": [torch.zeros(4, 2)], "b": [torch.ones(4, 2)]}
    lab = rk.laboratory
    converged = pd.DataFrame({"sampler": ["Euler"] * 2, "steps": [4, 8], "error": [0.4, 0.2]})
    run = rk.read(world.path("run")).table()
    return {
        "rehearsal.render": Edge(rk.rehearsal.render, caption | seed | {"size": [8, np.int64(16)]},
                                 _is(Image.Image), trials=words),
        "rehearsal.mask": Edge(rk.rehearsal.mask, caption | seed | {"size": [8]}, _is(np.ndarray),
                               trials=words),
        "rehearsal.complete": Edge(rk.rehearsal.complete, caption | seed, _is(rk.rehearsal.Scene),
                                   trials=words),
        "rehearsal.parse": Edge(rk.rehearsal.parse, caption, _is(rk.rehearsal.Scene), trials=words),
        "rehearsal.captions": Edge(
            rk.rehearsal.captions, {"split": ["train", "heldout"]}, _is(list),
            trials=_trials({"split": 5}, {"split": None}, {"split": ""}, number, {"split": "test"}),
        ),
        "rehearsal.scenes": Edge(
            rk.rehearsal.scenes, {"split": ["train", "heldout"]}, _is(tuple),
            trials=_trials({"split": 5}, {"split": None}, {"split": ""}, number, {"split": "test"}),
        ),
        "fidelity.truths": Edge(
            rk.fidelity.truths, {"source": [world.place], "count": [1, np.int64(2)],
                                 "size": [32, np.int64(40)]}, _is(list), trials=_trials(
                {"source": 5}, {"source": world.path("nowhere")}, {"source": world.path("nothing")},
                READS, {"source": world.path("foreign") / "notes.txt"},
            ),
        ),
        "fidelity.shrunk": Edge(
            rk.fidelity.shrunk, {"truth": [truths[0][0][1]], "scale": [2, np.int64(4)]},
            _is(Image.Image), trials=_picture("truth"),
        ),
        "fidelity.compare": Edge(
            rk.fidelity.compare, {"truths": truths, "names": [["lanczos"], ["bicubic"]],
                                  "scale": [2, np.int64(4)]}, _is(object), gate="names",
            trials=_trials({"truths": 5}, {"names": ["nobody"]}, {"truths": []}, READS,
                           {"truths": [("a", pictures()["zero"])]}),
        ),
        "laboratory.run": Edge(
            lab.run, {"name": ["Euler", "Heun"], "steps": [4, np.int64(5)],
                      "points": [4, np.int64(3)], "seed": [0, np.int64(2)]}, _is(object),
            trials=_trials({"steps": "4"}, {"name": None}, {"points": 0}, number, {"name": "mine"}),
        ),
        "laboratory.error": Edge(
            lab.error, points, _is(float), trials=_trials(
                {"a": "x"}, {"a": None}, {"a": torch.zeros(0)}, number, {"a": np.zeros((2, 2, 2))}
            ),
        ),
        "laboratory.order": Edge(
            lab.order, {"steps": [[4, 8], np.array([4, 8])], "errors": [[0.4, 0.1]]}, _is(float),
            trials=_trials({"steps": "48"}, {"steps": None}, {"steps": []}, number,
                           {"errors": [-1, 0]}),
        ),
        "laboratory.with_schedule": Edge(
            lab.with_schedule, {"name": ["Euler"], "schedule": ["Karras"]}, _is(str),
            trials=_trials({"name": 5}, {"name": None}, {"name": ""}, number, {"name": "mine"}),
        ),
        "laboratory.converge": Edge(
            lab.converge, {"samplers": [["Euler"]], "window": [[2, 4]], "points": [2]}, _frame,
            gate="samplers", trials=_trials(
                {"samplers": 5}, {"window": None}, {"window": []}, number,
                {"samplers": ["mine"]}
            ),
        ),
        "laboratory.orders": Edge(
            lab.orders, {"table": [converged]}, _is(pd.Series), trials=_table("table", world)
        ),
        "laboratory.distance_to": Edge(
            lab.distance_to, {"df": [run], "reference": [run], "folder": [world.path("run")]},
            _is(pd.Series), trials=_folder("folder", world),
        ),
        "bootstrap.prepare": Edge(
            rk.bootstrap.prepare, {"drive": [False]}, _is(object), gate="drive",
            trials=_trials({"drive": 5}, {"drive": None}, {"drive": ""}, number, {"drive": "mine"}),
        ),
        "bootstrap.require": Edge(
            _required, {"need": ["ray>=2.40"]}, _is(type(None)),
            trials=_trials({"need": 5}, {"need": None}, {"need": ""}, number, {"need": "-r x"}),
        ),
    }  # fmt: skip


def functions(world: World) -> dict[str, Edge]:
    """Every public function, by the name it has after `rk.`."""
    return core(world) | folders(world) | tables(world) | wings(world)


def model() -> Edge:
    """A loaded model that makes one picture."""
    right = {
        "prompt": ["a red cube", "(a:1.2) [b:c:0.5]", "猫"], "steps": [1, np.int64(2)],
        "size": [64, "64x72", (72, 64), np.int64(64)], "guidance": [None, 0, np.float32(1.5)],
        "seed": [0, np.int64(2**40)], "sampler": [None, "Euler"], "negative": [None, ""],
    }  # fmt: skip
    trials = _trials({"prompt": 5}, {"prompt": None}, {"steps": 0}, READS, {"sampler": "mine"})
    return Edge(rk.load("rehearsal/turbo", device="cpu"), right, _is(Image.Image), trials)


def extend(every: dict[str, Any], world: World) -> None:
    """Add what takes seconds: networks, and a folder whose pictures are embedded."""
    every["rk.upscale"].right["name"].append("rehearsal/esrgan-x4")
    every["rk.score"].right["scorers"].append(["rehearsal/clip", "colour-cast"])
    sweep = rk.Sweep(
        models="rehearsal/turbo", prompts="suite:rehearsal-edits", seeds=2, steps=1, size=64,
        samplers=["Euler", "Heun"], encoders="rehearsal/clip",
    )  # fmt: skip
    folder = rk.run(sweep, world.path("embedded"), device="cpu").folder
    for name in ("sets", "edits"):
        every[f"rk.{name}"].right["folder"] = [folder, str(folder)]
        every[name].words[0] = str(folder)


# Public names that are no functions: tables of the catalogue, a record, an error.
NO_FUNCTIONS = {"MODELS", "SAMPLERS", "UPSCALERS", "SCORERS", "ENCODERS", "Cell", "RequestError"}
# Functions of the public modules that others of the kit call, not people.
INNER = {
    "denoise", "moments", "wanted", "least", "judged", "draw", "uncoloured",
}  # fmt: skip
