"""Plain downloads: resumed, verified, never half-written; and the hashes of files, computed once
for each state of a file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3 import HTTPResponse

import realkit as rk
from realkit.base import cache
from realkit.base.cache import CACHE, CHUNK, SPARE
from realkit.weights.sources import web
from realkit.weights.sources.retries import POLICY, TRIES
from realkit.weights.sources.web import STEP
from tests.hub_server import Manners, files, killed, nowhere

DATA = bytes(range(251)) * 4000  # about a mebibyte
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A server's folder with one file; the cache beside it."""
    for name in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.safetensors").write_bytes(DATA)
    return tmp_path / "served"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that a download would have waited, which it does not."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def fetch(server, sha=SHA, **options):
    target = cache.cache_folder("files") / "a.safetensors"
    return web.download(
        f"{server.endpoint}/a.safetensors", target, called="A model", sha=sha, **options
    )


def left() -> list[str]:
    """What lies in the cache, locks aside."""
    return sorted(
        path.name
        for path in cache.cache_folder("files").iterdir()
        if not path.name.endswith(".lock")
    )


def test_a_file_is_fetched_once_and_its_progress_shown(place, capsys):
    with files(place) as server:
        assert fetch(server).read_bytes() == DATA
        assert "A model: 100%" in capsys.readouterr().err and left() == ["a.safetensors"]
        assert fetch(server).read_bytes() == DATA and len(server.requests) == 1


def test_after_a_cut_only_the_missing_bytes_are_asked_for(place, waits):
    came = len(DATA) // 2
    with files(place, {"a.safetensors": Manners(cuts=1)}) as server:
        assert fetch(server).read_bytes() == DATA
        assert (
            server.ranges == ["", f"bytes={came - came % STEP}-"] and waits == []
        )  # the first try again is at once


@pytest.mark.parametrize("sha", [SHA, ""])
def test_a_connection_that_never_holds_is_one_line_and_the_next_run_goes_on(place, waits, sha):
    with files(place, {"a.safetensors": Manners(cuts=-1)}) as server:
        with pytest.raises(
            rk.RequestError,
            match=(
                r"^A model cannot be downloaded: the connection to 127\.0\.0\.1 ended early 6"
                r" times\. Run again to resume"
            ),
        ) as error:
            fetch(server, sha)
        assert (
            "\n" not in str(error.value) and len(server.requests) == TRIES and waits == [1, 2, 4, 8]
        )
        assert "a.safetensors" not in left() and "a.safetensors.part" in left()
        there = (cache.cache_folder("files") / "a.safetensors.part").stat().st_size
        server.manners.clear()
        assert fetch(server, sha).read_bytes() == DATA
        assert server.ranges[-1] == f"bytes={there}-" and left() == ["a.safetensors"]


def test_what_a_killed_process_left_is_gone_on_with(place, tmp_path):
    with files(place, {"a.safetensors": Manners(hangs=1)}) as server:
        code = f"""
            from realkit.base.cache import cache_folder
            from realkit.weights.sources.web import download
            target = cache_folder("files") / "a.safetensors"
            download("{server.endpoint}/a.safetensors", target, called="A model", sha="{SHA}")
        """
        killed(code, tmp_path, server)
        there = (cache.cache_folder("files") / "a.safetensors.part").stat().st_size
        assert 0 < there < len(DATA) and "a.safetensors" not in left()
        assert fetch(server).read_bytes() == DATA and server.ranges == ["", f"bytes={there}-"]


def test_nobody_listens(place, waits):
    with pytest.raises(
        rk.RequestError, match=r"^A model cannot be downloaded: ConnectionError at 127\.0"
    ):
        web.download(
            f"{nowhere()}/a", cache.cache_folder("files") / "a.safetensors", called="A model"
        )
    assert waits == [1, 2, 4, 8] and left() == []


def test_the_remains_of_another_file_are_not_gone_on_with(place, waits):
    part = cache.cache_folder("files") / "a.safetensors.part"
    with files(place) as server:
        part.write_bytes(b"of another version")
        part.with_name(f"{part.name}.etag").write_text('"another"')
        assert fetch(server, "").read_bytes() == DATA
        assert server.ranges == ["bytes=18-", ""] and left() == ["a.safetensors"]


def test_remains_longer_than_the_file_are_dropped(place, waits):
    (cache.cache_folder("files") / "a.safetensors.part").write_bytes(DATA + b"more")
    with files(place) as server:
        assert fetch(server).read_bytes() == DATA and left() == ["a.safetensors"]


def test_a_server_that_knows_no_ranges_sends_all_again(place, waits):
    with files(place, {"a.safetensors": Manners(cuts=1, whole=True)}) as server:
        assert fetch(server).read_bytes() == DATA


def test_other_contents_than_published_are_removed(place):
    with files(place, {"a.safetensors": Manners(altered=True)}) as server:
        with pytest.raises(
            rk.RequestError,
            match=rf"with SHA-256 \w{{12}}…, expected {SHA[:12]}…: it is removed, run again",
        ):
            fetch(server)
        assert left() == []
        server.manners.clear()
        assert fetch(server).read_bytes() == DATA


def test_a_damaged_file_in_the_cache_is_fetched_anew(place):
    (cache.cache_folder("files") / "a.safetensors").write_bytes(DATA[:-1])
    with files(place) as server:
        assert fetch(server).read_bytes() == DATA and server.ranges == [""]


def test_it_waits_as_long_as_the_server_asks(place, waits):
    with files(place, {"a.safetensors": Manners(waits=2)}) as server:
        assert fetch(server).read_bytes() == DATA and waits == [1, 1]
    asked = {
        "7": 7,
        "99999": 120,
        "Wed, 21 Oct 2015 07:28:00 GMT": 0,
        "Wed, 21 Oct 2099 07:28:00 GMT": 120,
        "soon": None,
        None: None,
    }
    for header, seconds in asked.items():
        response = HTTPResponse(headers={"Retry-After": header} if header else {})
        assert POLICY.get_retry_after(response) == seconds, header


def test_a_server_that_asks_to_wait_for_ever(place, waits):
    with (
        files(place, {"a.safetensors": Manners(waits=99)}) as server,
        pytest.raises(rk.RequestError, match=r"asks to wait \(429\): try again later"),
    ):
        fetch(server)
    assert len(waits) == TRIES - 1 and left() == []


@pytest.mark.parametrize(
    ("status", "token", "says"),
    [
        (401, None, "answered 401: it wants a token. Set IT"),
        (403, "a-secret", "answered 403: it wants another token than the one it was given. Set IT"),
        (404, None, r"the server has no such file \(404\)"),
        (451, None, "the server answered 451"),
    ],
)
def test_what_a_server_refuses_is_not_asked_for_again(place, waits, status, token, says):
    with files(place, {"a.safetensors": Manners(status=status)}) as server:
        with pytest.raises(
            rk.RequestError, match=f"^A model cannot be downloaded: .*{says}"
        ) as error:
            fetch(server, token=token, login="Set IT")
        assert (
            "a-secret" not in str(error.value)
            and len(server.requests) == 1
            and not waits
            and left() == []
        )


def test_the_token_is_sent(place):
    with files(place) as server:
        fetch(server, token="a-secret")
        assert server.requests[0].authorization == "Bearer a-secret"


def test_a_full_disk_is_said_before_anything_is_written(place, monkeypatch):
    usage = shutil.disk_usage(place)._replace(free=SPARE)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with (
        files(place) as server,
        pytest.raises(
            rk.RequestError,
            match=(
                r"A model needs .* and 200\.0 MiB to spare, .* has \S+ MiB free: make room, or set"
                r" \$REALKIT_CACHE"
            ),
        ),
    ):
        fetch(server)
    assert left() == []


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, r"the disk is full, '.*' has \d+\.\d GiB free: make room"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_fails_on_the_way_says_what_to_do(place, monkeypatch, number, says):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(web, "_stream", fails)
    with (
        files(place) as server,
        pytest.raises(
            rk.RequestError,
            match=(
                rf"^A model cannot be written to '.*': {says}.* \$REALKIT_CACHE to a (writable"
                r" folder|folder on another disk)"
            ),
        ),
    ):
        fetch(server)


def test_a_lock_that_cannot_be_taken_is_one_line(place):
    (cache.cache_folder("files") / ".a.safetensors.lock").mkdir()
    with (
        files(place) as server,
        pytest.raises(
            rk.RequestError, match=r"^A model cannot be written to '.*': .*\. Set \$REALKIT_CACHE"
        ),
    ):
        fetch(server)


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert cache.existing(tmp_path / "a" / "b") == tmp_path
    assert cache.free_bytes(tmp_path / "a" / "b") > 0


def test_two_that_want_the_same_file_fetch_it_once(place):
    with files(place) as server, ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: fetch(server).read_bytes() == DATA, range(4)))
        assert found == [True] * 4 and len(server.requests) == 1


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(
        rk.RequestError, match=r"The cache '.*' cannot be made: .*\. Set \$REALKIT_CACHE"
    ):
        cache.cache_folder("files")


def test_a_hash_is_computed_once_for_each_state_of_a_file(place, monkeypatch):
    path, computed = place / "large", []
    digest = cache.digest
    monkeypatch.setattr(cache, "digest", lambda of: computed.append(of) or digest(of))
    path.write_bytes(b"0" * CHUNK)
    os.utime(path, (1, 1))
    assert (
        cache.sha256(path) == cache.sha256(path) == hashlib.sha256(b"0" * CHUNK).hexdigest()
        and len(computed) == 1
    )
    path.write_bytes(b"1" * CHUNK)
    os.utime(path, (1, 1))  # the same size and modification time
    assert cache.sha256(path) == hashlib.sha256(b"1" * CHUNK).hexdigest() and len(computed) == 2
    (place / "link").symlink_to(path)
    assert cache.sha256(place / "link") == cache.sha256(path) and len(computed) == 2


def test_no_note_is_kept_of_a_file_that_may_still_be_written(place):
    path = place / "large"
    path.write_bytes(b"0" * CHUNK)
    cache.sha256(path)
    assert not list(cache.cache_folder("hashes").iterdir())
    os.utime(path, (1, 1))
    cache.sha256(path)
    assert len(list(cache.cache_folder("hashes").iterdir())) == 1
