import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.apps.cli.files import check_derived
from realkit.apps.cli.main import main
from realkit.base.errors import unforeseen
from realkit.models import loading
from realkit.runs import loop
from realkit.runs.store import Store
from realkit.upscalers import upscale

GOOD = "models: rehearsal/base\nprompts: a red cube\nsteps: 2\nscorers: rehearsal/clip\n"


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "sampler: Euler\n", "Unknown key 'sampler'"),
        (GOOD.replace("base", "bass"), "Unknown model"),
        (
            GOOD + "samplers: DPM 2M Karas\n",
            "Unknown sampler 'DPM 2M Karas'. Did you mean 'DPM++ 2M Karras'?",
        ),
        (GOOD.replace("steps: 2", "steps: -2"), "steps -2"),
        (GOOD + "guidance: .nan\n", "guidance nan"),
        (GOOD + "size: 130\n", "multiple of 8"),
        (GOOD + "seeds: []\n", "seeds is an empty list"),
        ("models: [", "is not YAML"),
    ],
)
def test_a_wrong_sweep_ends_with_2_and_starts_nothing(tmp_path, text, says):
    (tmp_path / "sweep.yaml").write_text(text)
    for command in (
        ["run", tmp_path / "sweep.yaml", "--out", tmp_path / "out"],
        ["plan", tmp_path / "sweep.yaml"],
    ):
        code, _, error = call(*command)
        assert (
            code == 2 and says in error and error.count("\n") == 1 and error.startswith("realkit: ")
        )
    assert not (tmp_path / "out").exists()


def test_missing_files_end_with_2(tmp_path):
    for command in (
        ["run", "none.yaml", "--out", tmp_path / "x"],
        ["upscale", "none.png", "--with", "lanczos", "--to", 64],
        ["score", "none.png", "a"],
        ["table", tmp_path],
    ):
        code, _, error = call(*command)
        assert code == 2 and error.startswith("realkit: ") and error.count("\n") == 1, command


def test_a_sweep_from_plan_to_table(tmp_path):
    (tmp_path / "sweep.yaml").write_text(GOOD)
    code, shown, _ = call("plan", tmp_path / "sweep.yaml")
    assert code == 0 and "1 cell:" in shown and "2 denoiser calls" in shown
    code, shown, _ = call("run", tmp_path / "sweep.yaml", "--out", tmp_path / "out")
    assert code == 0 and "1 cells ok" in shown
    code, shown, _ = call("table", tmp_path / "out", "--csv")
    assert code == 0 and shown.startswith("cell,model,sampler") and shown.count("\n") == 2
    assert "rehearsal/clip" in call("table", tmp_path / "out")[1]
    assert (
        call("table", tmp_path / "out", "--parquet", tmp_path / "t.parquet")[0] == 0
        and (tmp_path / "t.parquet").exists()
    )


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "a", "--steps", "abc"],
        ["list", "things"],
        ["nothing"],
        ["run"],
        ["table", "--nope"],
    ],
)
def test_a_wrong_command_line_ends_with_2_in_one_line(command):
    code, _, error = call(*command)
    assert code == 2 and error.startswith("realkit: ") and error.count("\n") == 1


def test_help_is_no_error():
    assert call("--help")[0] == call("run", "--help")[0] == call("--version")[0] == 0


def test_failed_cells_end_with_1(tmp_path, monkeypatch):
    from realkit.models.model import Model

    monkeypatch.setattr(Model, "denoise", lambda *_: 1 / 0)
    (tmp_path / "sweep.yaml").write_text(GOOD)
    code, shown, _ = call("run", tmp_path / "sweep.yaml", "--out", tmp_path / "out")
    assert code == 1 and "1 cells failed" in shown


def test_a_disk_that_is_full_in_the_middle_ends_with_1(tmp_path, monkeypatch):
    from realkit.base.files import WriteError

    def full(*_, **__):
        raise WriteError(tmp_path / "rows.jsonl", OSError(28, "No space left on device"))

    monkeypatch.setattr(loop, "run", full)
    code, _, error = call("run", tmp_path / "sweep.yaml", "--out", tmp_path / "out")
    assert (
        code == 1
        and "No space left on device. What is done is kept" in error
        and error.count("\n") == 1
    )


def test_generate_upscale_score(tmp_path):
    picture = tmp_path / "a.png"
    assert (
        call(
            "generate",
            "a photo of a matte red cube on grass at noon",
            "--steps",
            2,
            "--size",
            "128x136",
            "--out",
            picture,
        )[0]
        == 0
    )
    code, shown, _ = call("upscale", picture, "--with", "lanczos", "--to", 272)
    assert code == 0 and shown.strip().endswith("a-272.png")
    code, shown, _ = call(
        "score", picture, "a red cube", "--scorer", "rehearsal/clip", "--scorer", "colour-cast"
    )
    assert code == 0 and shown.startswith("rehearsal/clip ") and "colour-cast" in shown
    assert call("generate", "a", "--steps", 0, "--out", picture)[0] == 2
    (tmp_path / "text.png").write_text("no picture")
    assert "Cannot read the picture" in call("score", tmp_path / "text.png", "a")[2]


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("a", "ends in .png"),
        ("a.xyz", "ends in .png"),
        ("", "is a folder"),
        (".", "is a folder"),
        ("no/a.png", "does not exist"),
        ("a" * 999 + ".png", "too long"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_any_work(
    tmp_path, monkeypatch, out, says
):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("worked"))
    monkeypatch.setattr(upscale, "upscale", lambda *_, **__: pytest.fail("worked"))
    Image.new("RGB", (8, 8)).save("in.png")
    for command in (
        ["generate", "a red cube"],
        ["upscale", "in.png", "--with", "lanczos", "--to", 16],
    ):
        code, _, error = call(*command, "--out", out)
        assert code == 2 and says in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_table_is_not_written_over_a_folder(tmp_path):
    code, _, error = call("table", tmp_path, "--parquet", tmp_path)
    assert code == 2 and "it is a folder" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("rows.jsonl", "ends in .parquet"), ("a.png", "ends in"), ("a.parquet", "is no .parquet")],
)
def test_a_table_replaces_nothing_but_a_table(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"the only truth")
    code, _, error = call("table", tmp_path, "--parquet", tmp_path / name)
    assert code == 2 and says in error and error.count("\n") == 1
    assert (tmp_path / name).read_bytes() == b"the only truth"
    check_derived(tmp_path / "new.parquet", ".parquet", b"PAR1")
    (tmp_path / "old.parquet").write_bytes(b"PAR1 and more")
    check_derived(tmp_path / "old.parquet", ".parquet", b"PAR1")


@pytest.mark.parametrize("name", ["sweep.yaml", "table.csv", "table.parquet"])
def test_a_run_replaces_no_file_of_a_folder_that_is_not_its_own(tmp_path, name):
    (tmp_path / name).write_text(GOOD.replace("steps: 2", "steps: 3"))
    before = (tmp_path / name).read_text()
    (tmp_path / "s.yml").write_text(GOOD)
    code, _, error = call("run", tmp_path / "s.yml", "--out", tmp_path)
    assert code == 2 and "would be replaced" in error and error.count("\n") == 1
    assert (tmp_path / name).read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "s.yml"])
    (tmp_path / "index.html").write_text("mine")
    with (
        pytest.raises(ValueError, match="would be replaced"),
        Store(tmp_path).writing("index.html"),
    ):
        pass
    (tmp_path / "runs.jsonl").touch()
    with Store(tmp_path).writing():
        pass


def test_a_sweep_file_in_its_own_results_stays_as_it_was_written(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("# mine\nmodels: rehearsal/base\nprompts: a red cube\nsteps: 1\nsize: 64\n")
    before = path.read_text()
    for _ in range(2):
        assert call("run", path, "--out", tmp_path)[0] == 0 and path.read_text() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
def test_a_full_disk_behind_the_output_is_one_line():
    command = [sys.executable, "-m", "realkit", "list", "prompts"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "realkit: Cannot write the output: No space left on device\n"


def test_what_the_system_refuses_is_no_fault_of_the_kit():
    said = str(unforeseen("table", OSError(errno.ENOSPC, "No space left on device")))
    assert said.startswith("table: No space left on device.") and "fault" not in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_without_a_writer_is_refused(tmp_path):
    os.mkfifo(tmp_path / "sweep.yaml")
    code, _, error = call("plan", tmp_path / "sweep.yaml")
    assert code == 2 and "it is a pipe" in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="it is a pipe"):
        rk.Sweep.from_yaml(tmp_path / "sweep.yaml")


@pytest.mark.parametrize("size", ["²", "9" * 5000, "x", "512x", "-8"])
def test_a_size_that_is_none(size):
    code, _, error = call("generate", "a red cube", "--size", size)
    assert (
        code == 2
        and error.startswith("realkit: size ")
        and error.count("\n") == 1
        and len(error) < 250
    )


def test_pictures_are_read_upright_and_written_with_or_without_transparency(tmp_path):
    import numpy as np
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=turned)
    assert call("upscale", tmp_path / "a.jpg", "--with", "lanczos", "--to", 16)[0] == 0
    with Image.open(tmp_path / "a-16.png") as made:
        assert made.size == (8, 16)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "b.png")
    assert (
        call(
            "upscale",
            tmp_path / "b.png",
            "--with",
            "lanczos",
            "--to",
            16,
            "--out",
            tmp_path / "b.jpg",
        )[0]
        == 0
    )
    with Image.open(tmp_path / "b.jpg") as made:
        assert np.asarray(made).min() > 250


def test_a_picture_too_large_to_open_is_one_line(tmp_path, monkeypatch):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    code, _, error = call("score", tmp_path / "a.png", "a", "--scorer", "colour-cast")
    assert code == 2 and "Cannot read the picture" in error and error.count("\n") == 1


@pytest.mark.parametrize("what", ["models", "samplers", "upscalers", "scorers", "prompts"])
def test_lists(what):
    code, shown, _ = call("list", what)
    assert code == 0 and shown


@pytest.mark.parametrize(
    ("what", "table"), [("models", rk.MODELS), ("upscalers", rk.UPSCALERS), ("scorers", rk.SCORERS)]
)
def test_a_list_shows_what_could_not_be_looked_up(what, table):
    lines = call("list", what)[1].splitlines()
    marked = {line.split("  ")[0] for line in lines if "(unverified: " in line}
    assert marked == {name for name, entry in table.items() if entry.unverified} != set()


def test_import_and_lists_start_in_a_blink():
    def best(*command):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        return min(times)

    bare = best("-c", "pass")
    assert best("-c", "import realkit, sys; assert 'torch' not in sys.modules") - bare < 0.3
    assert best("-m", "realkit", "list", "samplers") < 1.0
    subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import realkit.apps.cli.main, realkit.sweeps.sweep, realkit.runs.loop,"
                " realkit.analysis.plots, sys; assert 'torch' not in sys.modules"
            ),
        ],
        check=True,
    )


def test_the_column_dictionary_is_current():
    from pathlib import Path

    assert (Path(__file__).parents[2] / "results" / "README.md").read_text() == call("columns")[1]


def test_a_columns_unit_is_the_one_its_name_ends_with():
    from realkit.catalog.columns import COLUMNS

    units = {name: column.unit for name, column in COLUMNS.items()}
    assert {name for name, unit in units.items() if unit == "GiB"} == {
        name for name in units if name.endswith("_gib")
    }
    assert {name for name, unit in units.items() if unit == "s"} == {
        "seconds",
        *(name for name in units if name.endswith("_s")),
    }
    assert {name for name, unit in units.items() if unit == "J"} == {
        "joules",
        *(name for name in units if name.endswith("_j")),
    }


def test_generate_and_upscale_write_what_made_the_picture(tmp_path):
    from PIL import Image

    from realkit.models import provenance

    small, large = tmp_path / "small.png", tmp_path / "large.png"
    settings = [
        "--model",
        "rehearsal/base",
        "--sampler",
        "Euler",
        "--steps",
        "2",
        "--size",
        "64",
        "--seed",
        "7",
    ]
    assert (
        CliRunner()
        .invoke(main, ["generate", "a red cube", *settings, "--out", str(small)])
        .exit_code
        == 0
    )
    assert (
        CliRunner()
        .invoke(
            main, ["upscale", str(small), "--with", "lanczos", "--to", "100", "--out", str(large)]
        )
        .exit_code
        == 0
    )
    assert (
        "a red cube\nSteps: 2, Sampler: Euler, Schedule type: Uniform, CFG scale: 3, Seed: 7, Size:"
        " 64x64" in Image.open(large).text["parameters"]
    )
    made, enlarged = provenance.record(small), provenance.record(large)
    assert made["cell"]["seed"] == 7 and made["pixels"] == provenance.pixel_hash(Image.open(small))
    assert enlarged["cell"] == made["cell"] | {"upscaler": "lanczos", "target": [100, 100]}
    assert enlarged["determined"].items() > made["determined"].items()


def test_prune_says_what_it_deletes_and_deletes_it(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    code, said, _ = call("prune", folder, "--latents", "--dry-run")
    assert code == 0 and said.startswith("8 latents would be deleted, 0.")
    assert "denoised again" in said and len(list((folder / "latents").iterdir())) == 8
    assert call("prune", folder, "--latents")[1].startswith("8 latents deleted, 0.")
    assert call("prune", folder, "--latents")[1] == "No latents deleted.\n"
    assert call("prune", folder)[0] == 2 and call("prune", tmp_path, "--latents")[0] == 2
    with Store(folder).writing():
        code, _, error = call("prune", folder, "--latents")
        assert code == 2 and "Another run is writing" in error


def test_a_picture_is_never_written_over_and_its_settings_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = ["generate", "a cube", "--steps", "2", "--size", "64", "--seed"]
    for seed, name in ((3, "image.png"), (4, "image-2.png"), (5, "image-3.png")):
        code, output, error = call(*ask, seed)
        assert (code, output) == (0, f"{name}\n")
        assert f"rehearsal/base, DPM++ 2M Karras, 2 steps, guidance 3, seed {seed}, 64×64" in error
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 3
    before = (tmp_path / "image.png").read_bytes()
    code, _, error = call(*ask, 6, "--out", "image.png")
    assert code == 2 and "Cannot write 'image.png': it exists" in error
    assert (tmp_path / "image.png").read_bytes() == before
    enlarge = ["upscale", "image.png", "--with", "lanczos", "--to", "96"]
    assert call(*enlarge)[1] == "image-96.png\n" and call(*enlarge)[1] == "image-96-2.png\n"
    assert call(*enlarge, "--out", "image.png")[0] == 2
