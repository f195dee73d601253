from types import SimpleNamespace

import pytest
import torch

from realkit.base import device
from realkit.models import ladder
from tests import miniatures

KAGGLE = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("capability", "built", "served"),
    [
        ((6, 0), KAGGLE, False),
        ((7, 5), KAGGLE, True),
        ((8, 9), KAGGLE, True),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), KAGGLE, True),
        ((7, 0), ["sm_75"], False),
        ((7, 5), [], False),
    ],
)
def test_a_device_is_used_only_where_the_build_has_kernels_for_it(capability, built, served):
    assert device.has_kernels(capability, built) is served


def test_no_half_precision_on_a_cpu():
    assert device.dtype_for(torch.device("cpu")) is torch.float32


def test_a_gpu_without_kernels_is_said_not_passed_over_in_silence(monkeypatch):
    for name, value in {
        "is_available": True,
        "get_device_capability": (6, 0),
        "get_arch_list": KAGGLE,
        "get_device_name": "Tesla P100-PCIE-16GB",
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    with pytest.warns(RuntimeWarning, match=r"P100-.* is not used: .* needs sm_60\. .* doctor"):
        assert device.default_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    assert device.default_device().type == "cuda"


@pytest.mark.parametrize(
    ("gfx", "served"), [("gfx90a", True), ("gfx1100", True), ("gfx803", False)]
)
def test_rocm_serves_the_architectures_that_it_names(gfx, served):
    assert device.has_kernels((9, 0), ["gfx90a", "gfx1100"], gfx) is served


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("gfx90a:sramecc+:xnack-", torch.bfloat16),
        ("gfx1100", torch.bfloat16),
        ("gfx906", torch.float16),
        ("gfx1030", torch.float16),  # capability 10.3, and no bfloat16
    ],
)
def test_an_amd_gpu_on_rocm_is_used_in_the_format_that_it_multiplies(name, dtype, monkeypatch):
    card = SimpleNamespace(gcnArchName=name)
    monkeypatch.setattr(torch.version, "hip", "6.4.0")
    for function, value in {
        "is_available": True,
        "get_device_capability": (10, 3),
        "get_arch_list": ["gfx906", "gfx90a", "gfx1030", "gfx1100"],
        "get_device_properties": card,
        "get_device_name": "AMD Instinct",
    }.items():
        monkeypatch.setattr(torch.cuda, function, lambda *_, value=value: value)
    on = device.default_device()
    assert on.type == "cuda" and device.dtype_for(on) is dtype
    card.gcnArchName = "gfx803"
    with pytest.warns(RuntimeWarning, match=r"AMD Instinct is not used: .* it needs gfx803"):
        assert device.default_device().type == "cpu"


def test_a_gpu_of_another_maker_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.warns(RuntimeWarning, match=r"Apple's GPU \(MPS\) is not used, .*NVIDIA.*ROCm"):
        assert device.default_device().type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda: "Intel Arc A770")
    with pytest.warns(RuntimeWarning, match=r"Intel Arc A770 \(XPU\) is not used"):
        device.default_device()


def test_weights_that_two_modules_share_wait_on_the_disk_whole():
    """T5's embeddings: the file of the second was written when the first had let go of them."""
    network = miniatures.networks("sd3", t5=True).text_encoder_3
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        before = network(tokens)[0]
        ladder.place(network, "group-offload", torch.device("cpu"))
        assert torch.equal(network(tokens)[0], before)
