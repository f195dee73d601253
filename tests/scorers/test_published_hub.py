"""Scorers with published weights through a hub on loopback, under their real ids and file names:
locked by hash, fetched once, and scored again without a network."""

import hashlib
import json
from pathlib import Path

import open_clip
import pytest

from realkit.scorers.table import SCORERS
from tests import hub_server, scorer_miniatures
from tests.hub_server import nowhere, python, realkit, serving
from tests.scorer_miniatures import ARCHITECTURE, PUBLISHED

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
FETCHED = [
    "HuggingFaceTB/SmolVLM-256M-Instruct/model.safetensors",
    "THUDM/ImageReward/ImageReward.pt",
    "google/siglip2-base-patch16-224/model.safetensors",
    "google/siglip2-so400m-patch14-384/model.safetensors",
    "openai/clip-vit-large-patch14/model.safetensors",
    "xswu/HPSv2/HPS_v2.1_compressed.pt",
    "yuvalkirstain/PickScore_v1/model.safetensors",
]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    root = tmp_path_factory.mktemp("repositories")
    open_clip.add_model_config(scorer_miniatures.architecture(root / "open_clip"))
    scorer_miniatures.laion(root / "files" / HEAD)
    return root, scorer_miniatures.repositories(root)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def catalogue(folder: Path, root: Path, folders: dict[str, Path], address: str) -> Path:
    """The shipped entries. Of the pinned ones the hash is the miniature's, the address loopback's,
    the architecture as small."""
    pinned = {
        "hpsv2.1": folders["xswu/HPSv2"] / "HPS_v2.1_compressed.pt",
        "laion-aesthetic": root / "files" / HEAD,
    }
    entries = {}
    for name in PUBLISHED:
        settings = SCORERS[name].model_dump(exclude_defaults=True)
        if name in pinned:
            settings["sha256"] = sha256(pinned[name])
        if "architecture" in settings:
            settings["architecture"] = ARCHITECTURE
        if settings["source"].startswith("https:"):
            settings["source"] = f"{address}/{HEAD.replace('+', '%2B')}"
        entries[name] = settings
    return scorer_miniatures.catalogue(folder, entries)


def run(root: Path, out: Path, scorers: list[str]) -> str:
    return f"""
        import open_clip
        open_clip.add_model_config({str(root / "open_clip" / ARCHITECTURE)!r} + ".json")
        import realkit as rk
        sweep = dict(models="rehearsal/base", prompts=["a red cube", "a blue cone"], steps=1,
                     samplers="Euler", size=64, scorers={scorers})
        table = rk.run(sweep, {str(out)!r}).table()
        assert list(table.status) == ["ok", "ok"], list(table.error)
        print(table[{scorers}].to_json())
    """


def numbers(done) -> dict[str, list[float]]:
    assert done.returncode == 0, done.stderr[-3000:]
    columns = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: list(column.values()) for name, column in columns.items()}


@pytest.mark.slow
def test_weights_are_locked_fetched_once_and_used_again_without_a_network(repositories, tmp_path):
    root, folders = repositories
    out, home = tmp_path / "out", tmp_path / "home"
    with serving(folders) as hub, hub_server.files(root / "files") as plain:
        own = catalogue(tmp_path / "own", root, folders, plain.endpoint)
        settings = {"REALKIT_CATALOG": str(own)}
        first = numbers(python(run(root, out, PUBLISHED), home, hub.endpoint, **settings))
        large = {f"{path.strip('/')}" for path in (r.path for r in hub.requests if r.store)}
        assert sorted(large) == FETCHED  # of BERT and laion's CLIP-H only configs
    locks = json.loads((out / "sweep.lock.json").read_text())["scorers"]
    assert locks.keys() == set(PUBLISHED)
    weights = folders["yuvalkirstain/PickScore_v1"] / "model.safetensors"
    assert locks["pickscore"]["source"]["files"]["model.safetensors"] == sha256(weights)
    assert set(locks["pickscore"]["processor"]["files"]) >= {"preprocessor_config.json"}
    assert not any(name.endswith((".bin", ".safetensors"))
                   for name in locks["image-reward"]["tokenizer"]["files"])  # fmt: skip
    assert locks["hpsv2.1"]["source"]["revision"] == "697403c78157020a1ae59d23f111aa58ced35b0a"

    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["stage"] != "score"]
    assert len(rows) - len(kept) == 2 * len(PUBLISHED)
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    again = numbers(python(run(root, out, PUBLISHED), home, nowhere(), **settings))
    assert again == first
    assert all(first[name][0] != first[name][1] for name in PUBLISHED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickscore", "image-reward", "judge-photograph"])
def test_weights_that_nobody_has_are_one_line_and_exit_2(tmp_path, name):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "it.png")
    with serving({}) as hub:
        done = realkit(
            ["score", str(tmp_path / "it.png"), "a cube", "--scorer", name],
            tmp_path / "home",
            hub.endpoint,
        )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"Scorer '{name}': Hub model" in done.stderr and "cannot be reached" in done.stderr
