"""What the kit leaves out says why, and what to take instead, wherever it is asked for."""

import pytest
from PIL import Image

import realkit as rk
from realkit.apps.cli import main
from realkit.catalog.omissions import check, omissions
from realkit.models.spec import identify
from realkit.upscalers.chain import canonical

ASKED = {
    "SUPIR": "SUPIR", "supir": "SUPIR", "Kijai/SUPIR_pruned": "SUPIR",
    "Kijai/SUPIR_pruned/SUPIR-v0Q_fp16.safetensors": "SUPIR", "SUPIR-v0F.ckpt": "SUPIR",
    "https://example.com/SUPIR-v0Q.safetensors": "SUPIR",
    "SeedVR2": "SeedVR2", "ByteDance-Seed/SeedVR2-3B": "SeedVR2", "seedvr2_ema_3b": "SeedVR2",
    "hypernetwork": "hypernetworks", "hypernet:style": "hypernetworks",
    "models/hypernetworks/style.pt": "hypernetworks",
    "aesthetic gradients": "aesthetic gradients", "aesthetic_gradient": "aesthetic gradients",
    "vicgalle/aesthetic-gradients": "aesthetic gradients",
}  # fmt: skip
MEANT_OTHERWISE = [
    "laion-aesthetic", "ByteDance/Hyper-SD", "superscale", "hypernova/netted", "me/gradient",
    "aesthetic", "me/supirior",
]  # fmt: skip


@pytest.mark.parametrize(("name", "label"), ASKED.items())
def test_a_name_or_a_reference_says_why_and_what_instead(name, label):
    for ask in (identify, canonical):
        with pytest.raises(rk.RequestError) as raised:
            ask(name)
        said = str(raised.value)
        omission = omissions()[label]
        assert f"leaves {label} out: {omission.why}. Use {omission.instead}" in said
        assert "\n" not in said


@pytest.mark.parametrize("name", MEANT_OTHERWISE)
def test_other_words_are_not_taken_for_it(name):
    check(name)


def test_the_public_functions_and_the_command_line_say_it(capsys):
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(rk.RequestError, match="leaves SUPIR out"):
        rk.upscale(picture, "lanczos + SUPIR", 16)
    with pytest.raises(rk.RequestError, match="leaves SeedVR2 out"):
        rk.load("ByteDance-Seed/SeedVR2-3B")
    with pytest.raises(rk.RequestError, match="leaves hypernetworks out"):
        rk.Sweep(models="hypernetworks", prompts="a cube").cells()
    with pytest.raises(SystemExit) as ended:
        main.main(["list", "aesthetic gradients"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "leaves aesthetic gradients out" in said and said.count("\n") == 1


def test_a_file_of_ones_own_is_nobody_elses(tmp_path):
    mine = tmp_path / "supir.safetensors"
    mine.write_bytes(b"weights")
    assert identify(str(mine))[1].source == str(mine)
    assert canonical(mine)


def test_what_is_named_instead_is_there():
    for omission in omissions().values():
        named = [name for name in (*rk.UPSCALERS, *rk.SCORERS) if name in omission.instead]
        assert named or "LoRA" in omission.instead
