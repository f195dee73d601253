import sys
import threading
import time
from types import ModuleType
from urllib.parse import quote

import pytest

import realkit as rk
from realkit.base import credentials, place
from realkit.base.credentials import NAMES

SECRET = "hf_aBcDeFgHiJkL0123456789/+="


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No token anywhere, neither Kaggle nor Colab, and nothing remembered."""
    from huggingface_hub import constants

    for name in (
        *(name for names in NAMES.values() for name in names),
        "KAGGLE_KERNEL_RUN_TYPE",
        "COLAB_RELEASE_TAG",
        "COLAB_GPU",
        "HF_OIDC_RESOURCE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("kaggle_secrets", "google.colab"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(place, "KAGGLE", tmp_path / "kaggle")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for memory in ("_answers", "_silent", "_seen"):
        monkeypatch.setattr(credentials, memory, type(getattr(credentials, memory))())


def kaggle(monkeypatch, read):
    """Kaggle, whose secrets are read by `read(name)`."""
    module = ModuleType("kaggle_secrets")
    module.UserSecretsClient = lambda: type("Client", (), {"get_secret": staticmethod(read)})()
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")


def colab(monkeypatch, read):
    module = ModuleType("google.colab")
    module.userdata = type("userdata", (), {"get": staticmethod(read)})
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)


def test_nothing_is_none():
    assert [
        credentials.token("huggingface"),
        credentials.token_source("huggingface"),
        credentials.token("civitai"),
        credentials.token_source("civitai"),
    ] == [None] * 4


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("huggingface", "HF_TOKEN"),
        ("huggingface", "HUGGING_FACE_HUB_TOKEN"),
        ("civitai", "CIVITAI_TOKEN"),
        ("civitai", "CIVITAI_API_TOKEN"),
    ],
)
def test_the_environment_is_seen_as_it_is_now(monkeypatch, service, name):
    monkeypatch.setenv(name, f" {SECRET}\n")
    assert (
        credentials.token(service) == SECRET and credentials.token_source(service) == "environment"
    )
    monkeypatch.setenv(name, "another-value")
    assert credentials.token(service) == "another-value"
    monkeypatch.setenv(name, "")
    assert credentials.token(service) is None and credentials.token_source(service) is None


def test_the_first_name_wins(monkeypatch):
    monkeypatch.setenv("CIVITAI_API_TOKEN", "second-value")
    monkeypatch.setenv("CIVITAI_TOKEN", "first-value")
    assert credentials.token("civitai") == "first-value"


def test_kaggle_is_asked_once_and_after_the_environment(monkeypatch):
    asked = []
    kaggle(monkeypatch, lambda name: asked.append(name) or SECRET)
    monkeypatch.setenv("HF_TOKEN", "from-outside")
    assert credentials.token_source("huggingface") == "environment" and asked == []
    monkeypatch.delenv("HF_TOKEN")
    assert [
        credentials.token("huggingface"),
        credentials.token("huggingface"),
        credentials.token_source("huggingface"),
    ] == [SECRET, SECRET, "Kaggle secrets"]
    assert asked == ["HF_TOKEN"]


def test_an_absent_secret_is_asked_for_again_after_a_while(monkeypatch):
    asked = []

    def none_yet(name):
        asked.append(name)
        raise RuntimeError("no secret of that name")

    kaggle(monkeypatch, none_yet)
    assert credentials.token("civitai") is credentials.token("civitai") is None
    assert asked == ["CIVITAI_TOKEN", "CIVITAI_API_TOKEN"]
    monkeypatch.setattr(credentials, "ASK_AGAIN", 0)
    kaggle(monkeypatch, lambda _: SECRET)
    assert credentials.token("civitai") == SECRET


@pytest.mark.parametrize(
    "failure", [KeyError("x"), SystemExit(3), KeyboardInterrupt(), ConnectionError("no network")]
)
def test_whatever_a_secrets_service_raises_means_absent(monkeypatch, failure, capfd):
    def fails(_):
        raise failure

    kaggle(monkeypatch, fails)
    assert credentials.token("huggingface") is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", [None, 7, "", "  "])
def test_an_answer_that_is_no_token(monkeypatch, answer):
    kaggle(monkeypatch, lambda _: answer)
    assert credentials.token("civitai") is None


def test_a_service_that_does_not_answer_is_left_alone(monkeypatch):
    asked, end = [], threading.Event()
    kaggle(monkeypatch, lambda name: asked.append(name) or end.wait(30))
    monkeypatch.setattr(credentials, "PATIENCE", 0.1)
    monkeypatch.setattr(credentials, "ASK_AGAIN", 0)
    began = time.monotonic()
    assert (
        credentials.token("civitai")
        is credentials.token("civitai")
        is credentials.token("huggingface")
        is None
    )
    assert asked == ["CIVITAI_TOKEN"] and time.monotonic() - began < 5
    end.set()


def test_no_service_is_asked_elsewhere(monkeypatch):
    asked = []
    kaggle(monkeypatch, asked.append)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    assert credentials.token("huggingface") is None and asked == []


def test_the_folder_of_kaggle_is_enough(monkeypatch, tmp_path):
    kaggle(monkeypatch, lambda _: SECRET)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    (tmp_path / "kaggle").mkdir()
    assert place.on_kaggle() and credentials.token_source("civitai") == "Kaggle secrets"


def test_colab(monkeypatch):
    colab(monkeypatch, {"CIVITAI_API_TOKEN": SECRET}.__getitem__)
    assert (
        place.on_colab()
        and credentials.token("civitai") == SECRET
        and credentials.token_source("civitai") == "Colab secrets"
    )
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert not place.on_colab(), "Kaggle's image holds Colab's package"


def test_the_login_file_is_the_hubs_own(tmp_path):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert (
        credentials.token("huggingface") == SECRET
        and credentials.token_source("huggingface") == "login file"
    )
    assert credentials.token("civitai") is None


def test_known_tokens_are_scrubbed_in_every_form(monkeypatch):
    monkeypatch.setenv("CIVITAI_API_TOKEN", SECRET)
    once, lower = (
        quote(SECRET, safe=""),
        quote(SECRET, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
    )
    for form in (
        SECRET,
        quote(SECRET),
        once,
        lower,
        quote(once, safe=""),
        "".join(f"%{ord(c):02X}" for c in SECRET),
    ):
        assert credentials.scrub(f"<{form}> and ({form})") == "<***> and (***)", form


def test_tokens_of_every_source_are_scrubbed(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("from-the-login-file\n")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "shadowed-by-nothing")
    monkeypatch.setenv("CIVITAI_TOKEN", "handed-out-once")
    kaggle(monkeypatch, {"HF_TOKEN": "a-kaggle-secret"}.__getitem__)
    assert credentials.token("civitai") and credentials.token("huggingface")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN")
    assert credentials.token("huggingface") == "a-kaggle-secret"
    monkeypatch.delenv("CIVITAI_TOKEN")
    text = "from-the-login-file shadowed-by-nothing handed-out-once a-kaggle-secret untouched"
    assert credentials.scrub(text) == "*** *** *** *** untouched"


def test_to_scrub_asks_no_service(monkeypatch):
    kaggle(monkeypatch, lambda _: pytest.fail("asked"))
    assert credentials.scrub("nothing here") == "nothing here" and credentials._answers == {}


def test_a_longer_token_goes_whole(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "token-abc")
    monkeypatch.setenv("CIVITAI_TOKEN", "token-abc-and-more")
    assert credentials.scrub("x token-abc-and-more y") == "x *** y"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://a.b/c?token=abc&x=1", "https://a.b/c?token=***&x=1"),
        ("GET /c?x=1&access_token=abc HTTP/1.1", "GET /c?x=1&access_token=*** HTTP/1.1"),
        ("login(token='abc', x=1)", "login(token='***', x=1)"),
        ("to=https%3A%2F%2Fa%3Ftoken%3Dabc%26x%3D1", "to=https%3A%2F%2Fa%3Ftoken%3D***%26x%3D1"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("{'authorization': 'Bearer abc', 'x': 'y'}", "{'authorization': 'Bearer ***', 'x': 'y'}"),
        ('{"Authorization": "Bearer abc"}', '{"Authorization": "Bearer ***"}'),
        ("(b'Authorization', b'Bearer abc')", "(b'Authorization', b'Bearer ***')"),
        ("https://someone:pa:ss@w0rd@host.org/a.safetensors", "https://***@host.org/a.safetensors"),
        ("ProxyError('socks5://me:pass@proxy:1080/')", "ProxyError('socks5://***@proxy:1080/')"),
        ("https://only-a-token@host.org/a", "https://***@host.org/a"),
        ("https://me:with/sl#sh?s@host.org/a", "https://***@host.org/a"),
        (
            "to=https%3A%2F%2Fme%3Apass%40host.org%2Fa%40b",
            "to=https%3A%2F%2F***%40host.org%2Fa%40b",
        ),
        ("https://a.b/c?api_key=abc&x=1", "https://a.b/c?api_key=***&x=1"),
        ("https://a.b/c?x=1&key=abc", "https://a.b/c?x=1&key=***"),
        (
            "https://a.b/c?subscription-key=abc&amp;sig=def%3D",
            "https://a.b/c?subscription-key=***&amp;sig=***",
        ),
        (
            "https://s3/c?X-Amz-Credential=AK%2F1&X-Amz-Date=2&X-Amz-Signature=0f",
            "https://s3/c?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=***",
        ),
        (
            "https://gs/c?X-Goog-Signature=0f&Expires=9&Signature=x",
            "https://gs/c?X-Goog-Signature=***&Expires=9&Signature=***",
        ),
        (
            "to=https%253A%252F%252Fa%253Fkey%253Dabc%2526x%253D1",
            "to=https%253A%252F%252Fa%253Fkey%253D***%2526x%253D1",
        ),
        (
            "https://a.b/c?password=abc, client_secret=def",
            "https://a.b/c?password=***, client_secret=***",
        ),
        (
            f"said hf_{'aB3' * 11}x to, or=hf_{'aB3' * 7} and %3Dhf_{'aB3' * 7}",
            "said *** to, or=*** and %3D***",
        ),
        ("hf_oauth_eyJhbGciOiJIUzI1NiJ9.eyJz-dWIi_OiIx.c2ln: expired", "***: expired"),
        (
            "tokens = 77, a bearer of news, the token was cut",
            "tokens = 77, a bearer of news, the token was cut",
        ),
    ],
)
def test_unknown_tokens_are_scrubbed_where_they_say_what_they_are(text, clean):
    assert credentials.scrub(text) == clean


def test_what_holds_no_secret_stays_as_it_is():
    from realkit.models.spec import MODELS

    references = [
        ref
        for spec in MODELS.values()
        for ref in (
            spec.source,
            *spec.parts.values(),
            *spec.loras,
            *spec.aliases,
            spec.about,
            spec.settings_from,
        )
    ]
    assert len(references) > 50
    for text in [
        *references,
        "hf-internal-testing/tiny-stable-diffusion-torch",
        "hf_transfer and hf_xet",
        "owner/name@main:fp16",
        "http://127.0.0.1:8080/a@b",
        "https://civitai.com/models/4201/photo?modelVersionId=245598",
        "https://civitai.com/api/download/models/33?type=VAE&format=SafeTensor&size=full&fp=fp16",
        "https://huggingface.co/owner/name/resolve/main/a.safetensors?download=true",
        "http://[::1]:80/a@b",
        "file://C:/models/a@b",
        "https://a.b:443?to=a@b",
        "sorted(names, key=len)",
        "KeyError: 'key'; a monkey=1, sig=2",
        "someone@host.org wrote",
        "civitai:4201@245598?type=VAE",
        "***",
        "https://***@a.b/?key=***",
    ]:
        assert credentials.scrub(text) == text and not credentials.holds_secret(text)


@pytest.mark.parametrize(
    "ref",
    [
        "https://me:pass@host.org/a.safetensors",
        "https://host.org/a.safetensors?api_key=abc",
        f"someone/hf_{'aB3' * 11}x",
    ],
)
def test_a_reference_that_holds_a_secret_is_refused_and_not_quoted(ref):
    from realkit.models.spec import identify

    assert credentials.holds_secret(ref)
    with pytest.raises(
        rk.RequestError, match=r"\*\*\*.*holds a (token|secret).*leave it out"
    ) as error:
        identify(ref)
    assert not any(secret in str(error.value) for secret in ("pass", "abc", "aB3"))


def test_values_too_short_to_be_tokens_blacken_nothing(monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", "a")
    assert credentials.scrub("a banana") == "a banana"
