"""Civitai's references against its API on loopback: what is chosen, what is fetched and verified,
what is refused, and who gets to see the token."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

import realkit as rk
from realkit.base import cache
from realkit.base.cache import CACHE
from realkit.models.spec import identify
from realkit.weights import resolve
from realkit.weights.pickles import ALLOW_PICKLE
from realkit.weights.reference import CIVITAI_ENDPOINT as ENDPOINT
from realkit.weights.reference import parse, written_query
from realkit.weights.sources import civitai
from realkit.weights.sources.web import STEP
from tests import miniatures
from tests.civitai_server import File, Version, serving
from tests.hub_server import Answering, Manners, nowhere, python, realkit, running

TOKEN = "a-token-of-32-letters-and-numbers"
NAME = "photo_v2.safetensors"
PHOTO = [
    Version(7, 22, [File(Path("v2"), NAME)]),
    Version(7, 21, [File(Path("v1"), "photo_v1.safetensors")]),
]


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> dict[str, Path]:
    """Files to publish, small but real; the cache beside them, and no token."""
    for name in [
        key for key in os.environ if key.lower().endswith("_proxy") or key.startswith("CIVITAI")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("REALKIT_INPUTS", str(tmp_path / "none"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    import torch
    from safetensors.torch import save_file

    for name in ("v1", "v2", "vae"):
        save_file({name: torch.ones(30_000)}, tmp_path / name)
    torch.save({"state_dict": {"w": torch.ones(3)}}, tmp_path / "pickle")
    return {name: tmp_path / name for name in ("v1", "v2", "vae", "pickle")}


def shelved(shelf, versions) -> list[Version]:
    return [
        Version(
            v.model,
            v.number,
            [File(shelf[str(f.path)], f.name, f.primary, f.hashed, f.kind) for f in v.files],
        )
        for v in versions
    ]


@pytest.fixture
def site(shelf, monkeypatch):
    with serving(shelved(shelf, PHOTO)) as found:
        monkeypatch.setenv(ENDPOINT, found.endpoint)
        yield found


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left() -> list[str]:
    return sorted(
        path.name
        for path in cache.cache_folder("files").iterdir()
        if not path.name.endswith(".lock")
    )


@pytest.mark.parametrize(
    ("ref", "version"),
    [("civitai:7", "22"), ("civitai:7@21", "21"), ("civitai:@21", "21"), ("CivitAI:7@22", "22")],
)
def test_a_reference_is_pinned_to_a_version_and_nothing_is_fetched_for_it(
    site, shelf, ref, version
):
    locked = resolve.lock(ref)
    assert (locked.kind, locked.revision) == ("civitai", version) and locked.ref.endswith(
        f"@{version}"
    )
    assert locked.files == {".safetensors": sha(shelf[f"v{version[1]}"])} and left() == []
    assert resolve.lock(locked.ref) == locked


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/models/7/a-photo-model", "22"),
        ("/models/7?modelVersionId=21", "21"),
        ("/models/7/photo?modelVersionId=21", "21"),
        ("/api/download/models/21?type=Model&format=SafeTensor", "21"),
    ],
)
def test_the_addresses_that_the_site_shows(site, path, version):
    assert resolve.lock(site.endpoint + path).revision == version
    assert parse("https://civitai.com" + path).revision in ("", version)


@pytest.mark.parametrize(
    "ref", ["civitai:", "civitai:7?", "civitai:photo", "civitai:7@", "civitai:7@x", "civitai:7 "]
)
def test_what_names_no_model_is_refused_before_anything_is_asked(site, ref):
    with pytest.raises(rk.RequestError, match="expected civitai:MODEL or civitai:MODEL@VERSION"):
        resolve.lock(ref)
    assert not site.requests


@pytest.mark.parametrize(
    "path",
    [
        "/user/someone",
        "/models/7abc",
        "/models/7?modelVersionId=abc",
        "/models/7/photo?modelVersionId=",
        "/api/download/models/22x",
    ],
)
def test_an_address_without_a_model_or_version_is_refused_before_anything_is_asked(site, path):
    with pytest.raises(rk.RequestError, match=r"expected …/models/NUMBER") as error:
        resolve.lock(f"{site.endpoint}{path}{'&' if '?' in path else '?'}token={TOKEN}")
    assert TOKEN not in str(error.value) and not site.requests


@pytest.fixture(params=[True, False], ids=["hashed", "unhashed"])
def several(shelf, monkeypatch, request):
    """A version of several files: the model in full and pruned, a pickle of it, and its VAE."""
    files = [
        File(shelf["v1"], "photo.safetensors", hashed=request.param, size="full", fp="fp32"),
        File(shelf["v2"], "photo_pruned.safetensors", False, request.param),
        File(shelf["pickle"], "photo.ckpt", False, request.param),
        File(shelf["vae"], "photo.vae.safetensors", False, request.param, kind="VAE"),
    ]
    with serving([Version(7, 33, files)]) as found:
        monkeypatch.setenv(ENDPOINT, found.endpoint)
        yield found


@pytest.mark.parametrize(
    ("query", "name", "pinned"),
    [
        ("", "v1", ""),
        ("?type=VAE&format=SafeTensor", "vae", "?type=VAE&format=SafeTensor"),
        ("?type=vae", "vae", "?type=vae"),
        (
            "?type=Model&format=SafeTensor&size=full&fp=fp32&token=&other=1",
            "v1",
            "?type=Model&format=SafeTensor&size=full&fp=fp32",
        ),
        ("?fp=fp16&size=pruned&format=SafeTensor", "v2", "?format=SafeTensor&size=pruned&fp=fp16"),
    ],
)
def test_the_query_of_a_download_address_chooses_among_the_files_and_is_kept(
    several, shelf, query, name, pinned
):
    main = resolve.fetch(resolve.lock("civitai:7@33"))
    locked = resolve.lock(f"{several.endpoint}/api/download/models/33{query}")
    assert locked.ref == f"civitai:@33{pinned}" and locked.files == {
        ".safetensors": sha(shelf[name])
    }
    assert (
        resolve.lock(locked.ref) == locked == resolve.lock(locked.ref.replace("civitai", "Civitai"))
    )
    assert (
        resolve.fetch(locked).read_bytes() == shelf[name].read_bytes()
        and main.read_bytes() == shelf["v1"].read_bytes()
    )
    asked = len(several.requests)
    assert (
        resolve.fetch(locked).read_bytes() == shelf[name].read_bytes()
        and len(several.requests) == asked
    )  # from the cache
    for path in cache.cache_folder("files").glob("*.safetensors"):
        path.unlink()
    assert resolve.fetch(locked).read_bytes() == shelf[name].read_bytes()


def test_the_version_is_pinned_and_what_is_asked_of_the_file_too(several, shelf):
    locked = resolve.lock("civitai:7?type=VAE")
    assert locked.ref == "civitai:7@33?type=VAE" and locked.files == {
        ".safetensors": sha(shelf["vae"])
    }


def test_a_pickle_that_is_asked_for_is_one(several):
    with pytest.raises(rk.RequestError, match=r"'photo\.ckpt': expected \.safetensors; pickled"):
        resolve.lock(f"{several.endpoint}/api/download/models/33?format=PickleTensor")


def test_a_file_that_the_version_does_not_have(several):
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^civitai:@33\?type=VAE&fp=fp32 does not offer such a file: it has"
            r" \?type=Model&format=SafeTensor&size=full&fp=fp32 "
        ),
    ) as error:
        resolve.lock(f"{several.endpoint}/api/download/models/33?type=VAE&fp=fp32")
    assert (
        "?type=VAE&format=SafeTensor&size=pruned&fp=fp16 (photo.vae.safetensors). Take one of these"
        in str(error.value)
        and "\n" not in str(error.value)
    )


def test_an_address_that_is_none():
    with pytest.raises(rk.RequestError, match=r"^Cannot parse the address 'http://\[a/models/7'"):
        parse("http://[a/models/7")


def test_what_the_site_calls_a_file_cannot_break_the_line(shelf, monkeypatch):
    with serving(
        [Version(7, 22, [File(shelf["pickle"], "photo\nrealkit: all is well.zip")])]
    ) as site:
        monkeypatch.setenv(ENDPOINT, site.endpoint)
        with pytest.raises(rk.RequestError, match=r"\(photo realkit: all is well\.zip\)") as error:
            resolve.lock("civitai:7?type=VAE")
        assert "\n" not in str(error.value)


def test_a_reference_that_asks_for_what_no_file_has(several):
    with pytest.raises(
        rk.RequestError, match=r"asks for 'vae': expected some of type, format, size, fp"
    ):
        resolve.lock("civitai:7@33?vae=1")
    assert not several.requests


def test_without_a_published_address_the_file_is_described_to_the_site():
    described = civitai.describe(
        {
            "name": "a",
            "type": "Pruned Model",
            "metadata": {"format": "SafeTensor", "size": None, "fp": "fp16"},
        }
    )
    assert written_query(described) == "?type=Pruned%20Model&format=SafeTensor&fp=fp16"
    assert parse(f"civitai:7@33{written_query(described)}").query == described


def test_a_file_is_fetched_once_verified_and_found_again_without_the_site(site, shelf, monkeypatch):
    locked = resolve.lock("civitai:7")
    assert resolve.fetch(locked).read_bytes() == shelf["v2"].read_bytes()
    assert [request.store for request in site.requests] == [
        False,
        False,
        False,
        True,
    ]  # looked up when locked and when fetched, redirected, sent
    monkeypatch.setenv(ENDPOINT, nowhere())
    assert resolve.fetch(locked).read_bytes() == shelf["v2"].read_bytes()


def test_the_token_goes_to_the_site_and_not_to_where_it_redirects(site, monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", TOKEN)
    resolve.fetch(resolve.lock("civitai:7"))
    assert {request.authorization for request in site.requests if not request.store} == {
        f"Bearer {TOKEN}"
    }
    assert [request.authorization for request in site.requests if request.store] == [""]


def test_the_token_goes_to_no_other_address_that_an_answer_names(site, monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", TOKEN)
    assert (
        civitai.token(f"{site.endpoint}/api/download/models/22")
        == civitai.token("https://civitai.com/api/download/models/22")
        == TOKEN
    )
    assert [
        civitai.token(url)
        for url in (
            "http://civitai.com/a",
            "https://civitai.com.example.org/a",
            f"{site.store}/22/{NAME}",
        )
    ] == [None] * 3


def test_after_a_cut_only_the_missing_bytes_are_asked_for(site, shelf):
    site.manners[NAME] = Manners(cuts=1)
    assert resolve.fetch(resolve.lock("civitai:7")).read_bytes() == shelf["v2"].read_bytes()
    sent = [request.range for request in site.requests if request.store]
    half = shelf["v2"].stat().st_size // 2
    assert sent[0] == "" and sent[1:] == (
        [f"bytes={half - half % STEP}-"] if half >= STEP else [""]
    )


def test_an_interrupted_run_is_gone_on_with_by_the_next(site, shelf):
    locked = resolve.lock("civitai:7")
    data, part = (
        shelf["v2"].read_bytes(),
        cache.cache_folder("files") / f"{locked.files['.safetensors']}.safetensors.part",
    )
    part.write_bytes(data[:1000])
    part.with_name(f"{part.name}.etag").write_text(f'"{hashlib.md5(data).hexdigest()}"')
    assert resolve.fetch(locked).read_bytes() == data
    assert site.requests[-1].range == "bytes=1000-" and not part.exists()


def test_other_contents_than_published_are_removed(site, shelf):
    locked = resolve.lock("civitai:7")
    site.manners[NAME] = Manners(altered=True)
    with pytest.raises(
        rk.RequestError,
        match=rf"^civitai:7@22 \({NAME}\) was downloaded with SHA-256 .*: it is removed, run again",
    ) as error:
        resolve.fetch(locked)
    assert "\n" not in str(error.value) and left() == []
    site.manners.clear()
    assert resolve.fetch(locked).read_bytes() == shelf["v2"].read_bytes()


def test_a_version_that_was_replaced_since_it_was_locked_is_not_taken(site, shelf):
    locked = resolve.lock("civitai:7")
    shelf["v2"].write_bytes(shelf["v1"].read_bytes())
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^civitai:7@22 does not offer the file with SHA-256 .* \(any more\): take another"
            r" version"
        ),
    ):
        resolve.fetch(locked)


@pytest.mark.parametrize("where", ["api", "download"])
@pytest.mark.parametrize("given", ["", "a-token-that-opens-nothing"])
def test_what_wants_a_token_says_which_and_where_to_get_it(site, where, given, monkeypatch):
    if given:
        monkeypatch.setenv("CIVITAI_TOKEN", given)
    site.manners[where] = Manners(token=TOKEN)
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^civitai:7.* answered 40[13]: it wants .*civitai\.com/user/account and set"
            r" CIVITAI_TOKEN"
        ),
    ) as error:
        resolve.fetch(resolve.lock("civitai:7"))
    assert (
        "\n" not in str(error.value) and not (given and given in str(error.value)) and left() == []
    )
    monkeypatch.setenv("CIVITAI_TOKEN", TOKEN)
    assert resolve.fetch(resolve.lock("civitai:7")).is_file()


def test_a_page_that_asks_to_log_in_is_no_model(site):
    site.manners["download"] = Manners(status=200)
    with pytest.raises(
        rk.RequestError,
        match=r"the server answered with a web page, which usually wants a token\. .*CIVITAI_TOKEN",
    ):
        resolve.fetch(resolve.lock("civitai:7"))
    assert left() == []


@pytest.mark.parametrize(
    ("manners", "says"),
    [
        (Manners(status=404), r"the server has no such file \(404\)"),
        (Manners(status=503), "the server answered 503"),
        (Manners(status=200), "the answer is not what Civitai's API gives"),
    ],
)
def test_what_the_api_answers_instead(site, manners, says):
    site.manners["api"] = manners
    with pytest.raises(rk.RequestError, match=f"^civitai:7 cannot be looked up: {says}"):
        resolve.lock("civitai:7")


def test_the_site_asks_to_wait(site, shelf):
    site.manners |= {"api": Manners(waits=2), "download": Manners(waits=1)}
    assert resolve.fetch(resolve.lock("civitai:7")).read_bytes() == shelf["v2"].read_bytes()


def test_the_site_cannot_be_reached(site, monkeypatch):
    monkeypatch.setenv(ENDPOINT, nowhere())
    with pytest.raises(
        rk.RequestError,
        match=(
            r"^civitai:7 cannot be looked up: ConnectionError\. Turn the internet on, or attach the"
            r" file"
        ),
    ):
        resolve.lock("civitai:7")


def test_a_version_of_another_model(site):
    with pytest.raises(rk.RequestError, match="Civitai version 22 belongs to model 7, not 8"):
        resolve.lock("civitai:8@22")


def test_of_several_files_the_primary_one_that_is_no_pickle(shelf, monkeypatch):
    full, pruned, vae = (
        File(shelf["pickle"], "photo.ckpt"),
        File(shelf["v1"], "photo.safetensors", False),
        File(shelf["v2"], "vae.safetensors", False, kind="VAE"),
    )
    with serving([Version(7, 22, [vae, full, pruned])]) as site:
        monkeypatch.setenv(ENDPOINT, site.endpoint)
        locked = resolve.lock("civitai:7")
        assert (
            locked.files[".safetensors"] == sha(shelf["v1"])
            and resolve.fetch(locked).read_bytes() == shelf["v1"].read_bytes()
        )


def test_a_version_that_is_pickled_only(shelf, monkeypatch):
    with serving([Version(7, 22, [File(shelf["pickle"], "photo.ckpt")])]) as site:
        monkeypatch.setenv(ENDPOINT, site.endpoint)
        with pytest.raises(
            rk.RequestError,
            match=r"'photo\.ckpt': expected \.safetensors; pickled .*REALKIT_ALLOW_PICKLE=1",
        ):
            resolve.lock("civitai:7")
        assert not [request for request in site.requests if request.store]
        monkeypatch.setenv(ALLOW_PICKLE, "1")
        from safetensors.torch import load_file

        locked = resolve.lock("civitai:7")
        assert load_file(resolve.fetch(locked))["w"].tolist() == [1, 1, 1]
        monkeypatch.delenv(ALLOW_PICKLE)
        with pytest.raises(rk.RequestError, match="REALKIT_ALLOW_PICKLE=1"):
            resolve.fetch(locked)


def test_a_file_without_a_published_hash_is_locked_by_what_it_holds(shelf, monkeypatch):
    with serving([Version(7, 22, [File(shelf["v2"], NAME, hashed=False)])]) as site:
        monkeypatch.setenv(ENDPOINT, site.endpoint)
        locked = resolve.lock("civitai:7")
        assert locked.files == {".safetensors": sha(shelf["v2"])}
        assert (
            resolve.fetch(locked).read_bytes() == shelf["v2"].read_bytes()
            and resolve.lock("civitai:7") == locked
        )
        assert len([request for request in site.requests if request.store]) == 1
        cache.cache_folder("files").joinpath("civitai-22.safetensors").unlink()
        shelf["v2"].write_bytes(shelf["v1"].read_bytes())
        with pytest.raises(rk.RequestError, match="was downloaded with SHA-256"):
            resolve.fetch(locked)


def test_a_file_without_a_published_hash_that_is_no_model_is_not_kept(shelf, monkeypatch):
    shelf["v2"].write_bytes(b"not what the name says")
    with serving([Version(7, 22, [File(shelf["v2"], NAME, hashed=False)])]) as site:
        monkeypatch.setenv(ENDPOINT, site.endpoint)
        with pytest.raises(rk.RequestError, match="no valid safetensors header"):
            resolve.lock("civitai:7")
        assert left() == []


def test_a_catalogue_entry_has_its_civitai_page_among_its_names():
    assert (
        identify("civitai:4201")[0]
        == identify("https://civitai.com/models/4201/realistic-vision-v60-b1")[0]
        == "realistic-vision-6"
    )
    assert identify("civitai:4201@501240")[0] == "civitai:4201@501240"


SWEEP = "models: photo\nprompts: a photo of a red cube\nsamplers: Euler\nsteps: 2\nsize: 64\n"


@pytest.mark.slow
def test_a_model_of_the_site_makes_a_picture_and_no_trace_of_the_token_is_left(tmp_path):
    file = miniatures.single("sd1", tmp_path / "photo.safetensors")
    entry = {
        "family": "sd1",
        "source": "civitai:999001",
        "config": str(miniatures.configs("sd1", tmp_path / "config")),
    }
    (tmp_path / "models.toml").write_text(
        "[photo]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    )
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    home, out = tmp_path / "home", tmp_path / "out"
    given = {"REALKIT_CATALOG": str(tmp_path), "CIVITAI_TOKEN": TOKEN}
    with serving(
        [Version(999001, 22, [File(file, "photo.safetensors")])],
        {"api": Manners(token=TOKEN), "download": Manners(token=TOKEN)},
    ) as site:
        given[ENDPOINT] = site.endpoint
        done = realkit(
            ["run", str(tmp_path / "sweep.yaml"), "--out", str(out)], home, nowhere(), **given
        )
        assert done.returncode == 0 and "1 cells ok" in done.stdout, done.stderr[-2000:]
        assert "civitai:999001@22 (photo.safetensors)" in done.stderr  # its progress
        refused = realkit(
            ["plan", str(tmp_path / "sweep.yaml")],
            home,
            nowhere(),
            **given | {"CIVITAI_TOKEN": f"wrong-{TOKEN}"},
        )
        assert (
            refused.returncode == 2
            and refused.stderr.count("\n") == 1
            and "CIVITAI_TOKEN" in refused.stderr
        )
        site.manners["photo.safetensors"] = Manners(status=500)
    lock = json.loads((out / "sweep.lock.json").read_text())["models"]["photo"]
    assert lock["main"]["ref"] == "civitai:999001@22" and lock["main"]["files"] == {
        ".safetensors": sha(file)
    }
    written = [path for root in (out, home) for path in root.rglob("*") if path.is_file()]
    assert len(written) > 10 and not [
        path for path in written if TOKEN.encode() in path.read_bytes()
    ]
    assert TOKEN not in done.stdout + done.stderr + refused.stdout + refused.stderr


def test_what_the_libraries_log_bears_no_token(tmp_path):
    (tmp_path / "v2").write_bytes(b"nothing")
    code = """
        import logging, os, sys
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        from realkit import RequestError
        from realkit.weights import resolve
        try:
            resolve.fetch(resolve.lock("civitai:7"))
        except RequestError as error:
            print(error)
    """
    with serving(
        [Version(7, 22, [File(tmp_path / "v2", NAME)])], {NAME: Manners(status=403)}
    ) as site:
        done = python(
            code, tmp_path / "home", nowhere(), CIVITAI_TOKEN=TOKEN, CIVITAI_ENDPOINT=site.endpoint
        )
    assert (
        done.returncode == 0
        and "answered 403" in done.stdout
        and "GET /api/download" in done.stderr
    )
    assert TOKEN not in done.stdout + done.stderr


GOOD = {"name": NAME, "hashes": {"SHA256": "A" * 64}}
# An answer's file, or its version → what is said.
HOSTILE = [
    ({"files": [{**GOOD, "hashes": {"SHA256": "../../../../etc/passwd"}}]}, "the SHA-256 '../../"),
    ({"files": [{**GOOD, "hashes": {"SHA256": "a" * 63}}]}, "expected 64 hexadecimal digits"),
    ({"files": [{**GOOD, "hashes": {"SHA256": ["a"]}}]}, "expected 64 hexadecimal digits"),
    ({"files": [{**GOOD, "name": 3}]}, "not what Civitai's API gives"),
    ({"files": [{**GOOD, "metadata": [1]}]}, "not what Civitai's API gives"),
    ({"files": {"a": GOOD}}, "not what Civitai's API gives"),
    ({"files": [GOOD], "id": "../22"}, "not what Civitai's API gives"),
    ({"files": [GOOD], "id": None}, "not what Civitai's API gives"),
    ({"files": [{**GOOD, "name": "photo.safetensors/../x.exe"}]}, "expected one of .safetensors"),
]


@pytest.mark.parametrize(("version", "says"), HOSTILE, ids=range(len(HOSTILE)))
def test_no_part_of_an_answer_becomes_a_path_unchecked(shelf, monkeypatch, version, says):
    content = {"modelVersions": [{"id": 22, "modelId": 7, **version}]}

    class Site(Answering):
        def answer(self, path: str) -> None:
            self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    with running(Site) as address:
        monkeypatch.setenv(ENDPOINT, address)
        with pytest.raises(rk.RequestError, match=re.escape(says)) as error:
            resolve.lock("civitai:7")
    assert "\n" not in str(error.value)
