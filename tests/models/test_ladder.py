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
    with pytest.warns(RuntimeWarning, match=r"Tesla P100-PCIE-16GB is not used: .* realkit doctor"):
        assert device.default_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    assert device.default_device().type == "cuda"


def test_weights_that_two_modules_share_wait_on_the_disk_whole():
    """T5's embeddings: the file of the second was written when the first had let go of them."""
    network = miniatures.networks("sd3", t5=True).text_encoder_3
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        before = network(tokens)[0]
        ladder.place(network, "group-offload", torch.device("cpu"))
        assert torch.equal(network(tokens)[0], before)
