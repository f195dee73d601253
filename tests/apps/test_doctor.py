import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from realkit.apps.cli.main import main
from realkit.apps.doctor import facts as facts_module
from realkit.apps.doctor import other_gpus
from realkit.apps.doctor.facts import Disk, Facts, Gpu
from realkit.apps.doctor.findings import findings, passes

CU128 = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
P100, T4, A100 = (
    Gpu("Tesla P100-PCIE-16GB", (6, 0), 15.9),
    Gpu("Tesla T4", (7, 5), 14.6),
    Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 39.4),
)
VERSIONS = {
    "torch": "2.10.0+cu128", "torchvision": "0.25.0+cu128", "diffusers": "0.42.1",
    "transformers": "5.23.0", "accelerate": "1.15.0",
    "open_clip_torch": "3.3.0", "spandrel": "0.4.2", "ipywidgets": "8.1.5",
    "xformers": None, "basicsr": None, "realesrgan": None,
}  # fmt: skip
REQUIRED = {
    "torch": "2.6", "torchvision": "0.21", "diffusers": "0.42", "transformers": "5.6",
    "accelerate": "1.6", "open_clip_torch": "3.0",
    "spandrel": "0.4.1", "ipywidgets": "7.7.1",
}  # fmt: skip
GOOD = Facts(
    python="3.12.3", place="plain", required=REQUIRED, versions=VERSIONS, broken={},
    torchvision_needs="==2.10.0", torch_cuda="12.8", archs=CU128,
    gpus=(T4,), driver="580.82.07", driver_gpus=(T4,),
    disks=(Disk("results, the hub's cache and downloads", "here", 50.0),), ram_free_gib=25.0,
    tokens={"huggingface": "environment", "civitai": "environment"},
)  # fmt: skip
CU126_LINE = (
    "pip install torch==2.10.0+cu126 torchvision==0.25.0+cu126 --index-url"
    " https://download.pytorch.org/whl/cu126"
)


def versions(**changed):
    return VERSIONS | changed


def the_one(facts, level="warning", ends=True):
    """The only finding that is not ok, after checking its level and whether the main job can
    run."""
    found = findings(facts)
    bad = [finding for finding in found if finding.level != "ok"]
    assert [finding.level for finding in bad] == [level], bad
    assert bad[0].fix and "\n" not in bad[0].what + bad[0].fix
    assert passes(found) is (level != "failure")
    return bad[0]


def said(facts, topic):
    return " | ".join(finding.what for finding in findings(facts) if finding.topic == topic)


def test_a_good_t4():
    found = findings(GOOD)
    assert (
        passes(found)
        and {finding.level for finding in found} == {"ok"}
        and not any(finding.fix for finding in found)
    )
    assert (
        said(GOOD, "gpu")
        == "Tesla T4, 14.6 GiB, capability 7.5, has kernels in torch 2.10.0+cu128; no native bf16:"
        " half precision is float16"
    )


def test_a_good_a100():
    assert "bf16 is native" in said(replace(GOOD, gpus=(A100,)), "gpu")


@pytest.mark.parametrize(
    ("place", "fix"),
    [
        ("plain", CU126_LINE),
        ("Kaggle", "Notebook settings > Accelerator > GPU T4 x2; or " + CU126_LINE),
    ],
)
def test_the_retired_p100(place, fix):
    found = the_one(replace(GOOD, place=place, gpus=(P100,)), "failure")
    assert (
        found.topic == "gpu"
        and "Tesla P100" in found.what
        and "capability 6.0" in found.what
        and "sm_70, sm_75" in found.what
    )
    assert found.fix.startswith(fix) and ("restart" in found.fix) is (place == "Kaggle")


def test_a_p100_with_the_build_that_serves_it():
    facts = replace(
        GOOD,
        gpus=(P100,),
        archs=CU126,
        torch_cuda="12.6",
        versions=versions(torch="2.10.0+cu126", torchvision="0.25.0+cu126"),
    )
    assert passes(findings(facts)) and "has kernels in torch 2.10.0+cu126" in said(facts, "gpu")


def test_a_gpu_newer_or_older_than_any_build_of_the_line():
    found = the_one(replace(GOOD, gpus=(Gpu("NVIDIA B200", (10, 0)),), archs=CU126), "failure")
    assert found.fix == "pip uninstall -y torch torchvision && pip install torch torchvision"
    found = the_one(replace(GOOD, gpus=(Gpu("Tesla K80", (3, 7)),)), "failure")
    assert "another GPU" in found.fix and "cu126" not in found.fix


def test_a_second_gpu():
    assert "2 GPUs" in said(replace(GOOD, gpus=(T4, T4)), "gpu") and "GPUs" not in said(GOOD, "gpu")
    found = the_one(replace(GOOD, gpus=(T4, P100)))
    assert "P100" in found.what and found.fix.startswith("CUDA_VISIBLE_DEVICES=0")


@pytest.mark.parametrize(
    ("place", "fix"),
    [
        ("Kaggle", "Notebook settings > Accelerator > GPU T4 x2"),
        ("Colab", "Runtime > Change runtime type > T4 GPU"),
        ("plain", "NVIDIA GPU"),
    ],
)
def test_no_gpu_is_a_warning(place, fix):
    found = the_one(replace(GOOD, gpus=(), driver=None, driver_gpus=(), place=place))
    assert (
        found.topic == "gpu"
        and found.what.startswith("No GPU: rehearsal models run in a minute")
        and fix in found.fix
    )


@pytest.mark.parametrize(
    ("gpu", "fix"),
    [
        (T4, CU126_LINE),
        (Gpu("NVIDIA B200", (10, 0)), "pip uninstall -y torch torchvision && pip install"),
    ],
)
def test_a_torch_for_the_cpu_beside_a_gpu(gpu, fix):
    facts = replace(
        GOOD,
        gpus=(),
        archs=(),
        torch_cuda=None,
        driver_gpus=(gpu,),
        versions=versions(torch="2.10.0+cpu", torchvision="0.25.0+cpu"),
    )
    found = the_one(facts)
    assert (
        gpu.name in found.what
        and "torch 2.10.0+cpu is built for the CPU" in found.what
        and found.fix.startswith(fix)
    )


@pytest.mark.parametrize(
    ("driver", "cuda", "fix"),
    [
        ("550.54.15", "13.2", CU126_LINE),
        ("470.57.02", "12.8", "Update the NVIDIA driver to 525 or newer"),
        ("470.57.02", "13.2", "Update the NVIDIA driver to 580 or newer"),
    ],
)
def test_a_driver_too_old(driver, cuda, fix):
    found = the_one(replace(GOOD, gpus=(), driver=driver, torch_cuda=cuda))
    assert (
        f"driver {driver}" in found.what and f"CUDA {cuda} needs" in found.what and found.fix == fix
    )


def test_a_gpu_that_is_hidden_or_refused():
    assert the_one(replace(GOOD, gpus=(), visible="")).fix == "unset CUDA_VISIBLE_DEVICES"
    found = the_one(replace(GOOD, gpus=(), cuda_error="CUDA unknown error"))
    assert "torch cannot use Tesla T4: CUDA unknown error" in found.what and "Restart" in found.fix


@pytest.mark.parametrize(
    ("torch", "vision", "needs", "fits"),
    [
        ("2.10.0+cu128", "0.25.0", "==2.10.0", True),
        ("2.9.1", "0.24.0", "==2.9.0", True),
        ("2.10.0", "0.24.1", "==2.9.1", False),
        ("2.15.0+cu132", "0.29.2", ">=2.14.0", True),
        ("2.14.0", "0.29.2", ">=2.14.0", True),
        ("2.13.0", "0.29.2", ">=2.14.0", False),
        ("2.16.0", "0.31.0", ">=2.14,<2.16", False),
        ("2.10.0", "0.25.0", None, True),
        ("2.10.0", "0.21.0", None, False),
        ("2.15.0", "0.29.2", None, True),
        ("2.15.0", "0.28.0", None, False),
    ],
)
def test_which_torchvision_fits_which_torch(torch, vision, needs, fits):
    facts = replace(
        GOOD, versions=versions(torch=torch, torchvision=vision), torchvision_needs=needs
    )
    assert passes(findings(facts)) is fits
    assert (f"torchvision {vision} fits torch {torch}" in said(facts, "torchvision")) is fits


def test_a_torchvision_of_another_torch_is_one_failure():
    lost = "RuntimeError: operator torchvision::nms does not exist"
    broken = {"torchvision": lost, "transformers": lost, "diffusers": lost}
    facts = replace(
        GOOD, versions=versions(torchvision="0.21.0"), torchvision_needs="==2.6.0", broken=broken
    )
    found = the_one(facts, "failure")
    assert (
        found.topic == "torchvision"
        and "needs torch ==2.6.0" in found.what
        and "import transformers fails: RuntimeError: operator" in found.what
    )
    assert (
        found.fix == 'pip install --force-reinstall --no-deps "torchvision==0.25.*" --index-url'
        " https://download.pytorch.org/whl/cu128"
    )


def test_operators_that_fail_though_the_versions_fit():
    found = the_one(
        replace(
            GOOD, broken={"torchvision": "RuntimeError: operator torchvision::nms does not exist"}
        ),
        "failure",
    )
    assert "nms does not exist" in found.what and '"torchvision==0.25.*"' in found.fix


def test_the_partner_of_a_torch_that_needs_another_one_anyway():
    facts = replace(
        GOOD, gpus=(P100,), versions=versions(torchvision="0.21.0"), torchvision_needs="==2.6.0"
    )
    assert {finding.fix for finding in findings(facts) if finding.level == "failure"} == {
        CU126_LINE
    }
    facts = replace(GOOD, versions=versions(torch="2.15.0", torchvision="0.25.0"))
    assert (
        the_one(facts, "failure").fix
        == 'pip install --force-reinstall --no-deps "torchvision>=0.29"'
    )


def test_python_too_old():
    found = the_one(replace(GOOD, python="3.10.14"), "failure")
    assert "Python 3.10.14" in found.what and "3.11" in found.what and "python3.12" in found.fix
    for place, fix in (
        ("Kaggle", "Notebook settings > Environment > "),
        ("Colab", "Runtime > Change runtime type > Runtime version > Latest"),
    ):
        found = the_one(replace(GOOD, place=place, python="3.10.14"), "failure")
        assert found.fix.startswith(fix) and "make" not in found.fix


def test_what_is_not_installed():
    found = the_one(replace(GOOD, versions=versions(diffusers=None, spandrel=None)), "failure")
    assert (
        "diffusers, spandrel" in found.what
        and found.fix == 'pip install --upgrade "diffusers>=0.42" "spandrel>=0.4.1"'
    )
    found = the_one(replace(GOOD, versions=versions(ipywidgets=None)))
    assert "notebooks" in found.what and found.fix == 'pip install --upgrade "ipywidgets>=7.7.1"'


def test_old_diffusers():
    found = the_one(replace(GOOD, versions=versions(diffusers="0.41.0")))
    assert (
        "diffusers 0.41.0" in found.what
        and "0.42" in found.what
        and "single-file" not in found.what
    )
    assert found.fix == 'pip install --upgrade "diffusers>=0.42"'
    found = the_one(replace(GOOD, versions=versions(diffusers="0.37.1", transformers="5.15.0")))
    assert "With transformers 5.15.0 it cannot read single-file" in found.what


def test_old_torch():
    facts = replace(
        GOOD, versions=versions(torch="2.5.1", torchvision="0.20.1"), torchvision_needs="==2.5.1"
    )
    bad = [finding for finding in findings(facts) if finding.level != "ok"]
    assert [finding.what.split()[0] for finding in bad] == ["torch", "torchvision"] and passes(
        findings(facts)
    )
    assert {finding.fix for finding in bad} == {
        'pip install --upgrade "torch>=2.6" "torchvision>=0.21"'
    }


def test_imports_that_fail():
    found = the_one(replace(GOOD, broken={"spandrel": "ImportError: no einops"}), "failure")
    assert found.what == "import spandrel fails: ImportError: no einops" and found.fix.startswith(
        'pip install --upgrade "spandrel>=0.4.1"'
    )
    found = the_one(
        replace(GOOD, broken={"torch": "OSError: libcudart", "diffusers": "OSError: libcudart"}),
        "failure",
    )
    assert found.what == "import torch fails: OSError: libcudart"


def test_xformers_and_the_optional_engine():
    facts = replace(GOOD, gpus=(P100,), archs=CU126, versions=versions(xformers="0.0.33"))
    assert the_one(facts).fix == "pip uninstall -y xformers"
    assert passes(
        findings(replace(GOOD, versions=versions(xformers="0.0.33")))
    ) and "xformers" not in said(GOOD, "optional")
    found = the_one(replace(GOOD, versions=versions(basicsr="1.4.2")))
    assert (
        "functional_tensor" in found.what
        and 'sys.modules["torchvision.transforms.functional_tensor"]' in found.fix
    )


@pytest.mark.slow
def test_the_fix_of_the_optional_engine_works():
    line = the_one(replace(GOOD, versions=versions(basicsr="1.4.2"))).fix.split(": ", 1)[1]
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"{line}\nfrom torchvision.transforms.functional_tensor import rgb_to_grayscale",
        ],
        check=True,
    )


def test_disks():
    found = the_one(replace(GOOD, disks=(Disk("results", "here", 0.4),)), "failure")
    assert (
        "400 MB free for results (here)" in found.what
        and "results folders" in found.fix
        and "hf cache" not in found.fix
    )
    found = the_one(
        replace(GOOD, disks=(Disk("results", "here", 12.0), Disk("the hub's cache", "there", 9.9)))
    )
    assert "2.6 GB" in found.what and "SDXL 7 GB" in found.what and "hf cache rm" in found.fix
    found = the_one(
        replace(
            GOOD,
            disks=(
                Disk("results and the hub's cache", "here", 50.0),
                Disk("downloads", "there", 2.0),
            ),
        )
    )
    assert (
        "2.0 GB free for downloads (there)" in found.what
        and found.fix == "REALKIT_CACHE=FOLDER moves the downloads to another disk"
    )
    found = the_one(
        replace(GOOD, disks=(Disk("results, the hub's cache and downloads", "here", 2.0),))
    )
    assert all(
        way in found.fix for way in ("results folders", "hf cache rm", "HF_HOME=", "REALKIT_CACHE=")
    )
    found = the_one(replace(GOOD, place="Kaggle", disks=(Disk("results", "/kaggle/working", 3.0),)))
    assert "/kaggle/working holds 20 GB" in found.fix


def test_memory():
    assert "7.9 GiB" in the_one(replace(GOOD, ram_free_gib=7.9)).what
    assert passes(findings(replace(GOOD, ram_free_gib=None)))
    found = the_one(replace(GOOD, ram_free_gib=0.7), "failure")
    assert "0.7 GiB of RAM free" in found.what and found.fix.startswith("Shut down other notebooks")
    assert "High-RAM" in the_one(replace(GOOD, place="Colab", ram_free_gib=0.7), "failure").fix


def test_a_small_gpu():
    small = Gpu("NVIDIA GeForce GTX 1650", (7, 5), 3.6)
    found = the_one(replace(GOOD, gpus=(small,)))
    assert (
        found.topic == "gpu"
        and "GTX 1650 has 3.6 GiB" in found.what
        and "rehearsal models" in found.fix
        and "--rung group-offload" in found.fix
    )
    assert passes(findings(replace(GOOD, gpus=(T4, small)))) and all(
        finding.level == "ok" for finding in findings(replace(GOOD, gpus=(T4, small)))
    )
    assert all(
        finding.level == "ok" for finding in findings(replace(GOOD, gpus=(Gpu("a", (7, 5)), small)))
    )


def test_no_hub_and_offline():
    found = the_one(replace(GOOD, hub="unreachable", hub_error="timed out"))
    assert found.what == "huggingface.co cannot be reached: timed out" and "rehearsal" in found.fix
    assert "Internet > on" in the_one(replace(GOOD, hub="unreachable", place="Kaggle")).fix
    found = the_one(replace(GOOD, hub="offline"))
    assert "HF_HUB_OFFLINE is set" in found.what and found.fix.startswith("unset HF_HUB_OFFLINE")


@pytest.mark.parametrize(
    ("place", "fix"),
    [
        ("Kaggle", "Add-ons > Secrets > HF_TOKEN"),
        ("Colab", "Key symbol at the left > HF_TOKEN"),
        ("plain", "hf auth login"),
    ],
)
def test_no_token(place, fix):
    assert (
        the_one(
            replace(GOOD, place=place, tokens={"huggingface": None, "civitai": "Kaggle secrets"})
        ).fix
        == fix
    )


def test_inputs_of_ones_own_are_shown_anywhere():
    assert (
        said(replace(GOOD, inputs=("photos",)), "place")
        == "Runs in an ordinary Python | Attached: photos"
    )
    assert said(GOOD, "place") == "Runs in an ordinary Python"
    assert said(replace(GOOD, inputs=tuple("abcdefghijklmnopqrstuvwxyz")), "place").endswith(
        "s, t and 6 more"
    )


def test_kaggle_and_colab():
    facts = replace(GOOD, place="Kaggle", inputs=("photos", "models/owner/sd"))
    assert said(facts, "place") == "Runs in a Kaggle notebook | Attached: photos, models/owner/sd"
    facts = replace(GOOD, place="Colab", versions=versions(ipywidgets="7.7.1"))
    assert (
        {finding.level for finding in findings(facts)} == {"ok"}
        and "ipywidgets 7.7.1" in said(facts, "optional")
        and "Colab" in said(facts, "place")
    )


@pytest.fixture(scope="module")
def here():
    """`realkit doctor --json` on this machine, with tokens in the environment that must not come
    out: (exit code, standard output)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_madeUp1234567890")
        patch.setenv("CIVITAI_API_TOKEN", "civitaiMadeUp12345/+")
        began = time.monotonic()
        result = CliRunner().invoke(main, ["doctor", "--json"])
        return result.exit_code, result.output, time.monotonic() - began


@pytest.mark.slow
def test_this_machine(here):
    code, output, seconds = here
    shown = json.loads(output)
    facts = shown["facts"]
    assert facts["python"] == ".".join(map(str, sys.version_info[:3])) and facts["broken"] == {}
    assert facts["versions"]["torch"].split("+")[0] == version("torch").split("+")[0] and facts[
        "versions"
    ]["spandrel"] == version("spandrel")
    assert facts["hub"] == "offline" and facts["hub_host"] == "huggingface.co"
    assert (
        facts["disks"]
        and all(disk["free_gb"] > 0 for disk in facts["disks"])
        and facts["ram_free_gib"] > 0.1
    )
    lines = (Path(__file__).parents[2] / "requirements.txt").read_text().splitlines()
    assert facts["required"] == dict(
        line.split("#")[0].strip().split(">=") for line in lines if ">=" in line
    )
    assert (
        shown["ok"]
        is (code == 0)
        is all(finding["level"] != "failure" for finding in shown["findings"])
    )
    assert "fits torch" in next(
        finding["what"] for finding in shown["findings"] if finding["topic"] == "torchvision"
    )
    assert seconds < 60, "20 on a machine that does nothing else"


@pytest.mark.slow
def test_no_token_comes_out(here):
    assert "madeup" not in here[1].lower()
    assert json.loads(here[1])["facts"]["tokens"] == {
        "huggingface": "environment",
        "civitai": "environment",
    }


def test_one_line_a_finding_with_its_fix_below(monkeypatch):
    monkeypatch.setattr(facts_module, "gather", lambda: replace(GOOD, gpus=(P100,)))
    result = CliRunner().invoke(main, ["doctor"])
    lines = result.output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("failure"))
    assert result.exit_code == 1 and "P100" in lines[at] and lines[at + 1] == " " * 9 + CU126_LINE
    assert len(lines) == len(findings(replace(GOOD, gpus=(P100,)))) + 1
    monkeypatch.setattr(facts_module, "gather", lambda: replace(GOOD, gpus=()))
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 0


def test_the_doctor_starts_without_torch():
    code = (
        "import realkit.apps.doctor.findings, realkit.base.credentials, sys; assert not {'torch',"
        " 'huggingface_hub', 'diffusers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NO_GPU = replace(GOOD, gpus=(), driver=None, driver_gpus=())


@pytest.mark.parametrize(
    ("maker", "fix"),
    [("AMD", "ROCm build of torch"), ("Intel", "NVIDIA GPU"), ("Apple", "NVIDIA GPU")],
)
def test_a_gpu_of_another_maker_is_named_with_what_it_would_need(maker, fix):
    found = the_one(replace(NO_GPU, other_gpus=(maker,)))
    assert found.what.startswith(f"the GPU of {maker} is not used, the CPU is: realkit needs")
    assert fix in found.fix


def test_an_amd_gpu_on_rocm():
    card = Gpu("AMD Instinct MI210", (9, 0), 64.0, "gfx90a")
    rocm = replace(
        NO_GPU, gpus=(card,), torch_cuda=None, torch_hip="6.4.0", archs=("gfx90a", "gfx1100")
    )
    assert passes(findings(rocm))
    assert "MI210, 64.0 GiB, gfx90a, has kernels" in said(rocm, "gpu")
    assert "bf16 is native" in said(rocm, "gpu")
    old = the_one(replace(rocm, gpus=(replace(card, gfx="gfx803"),)), "failure")
    assert "gfx90a, gfx1100 only" in old.what and "ROCm build" in old.fix
    idle = replace(rocm, gpus=(), other_gpus=("AMD",), cuda_error="no HIP device")
    assert "cannot use the GPU of AMD: no HIP device" in the_one(idle).what


def test_gpus_of_other_makers_are_found_where_the_system_lists_them(tmp_path, monkeypatch):
    monkeypatch.setattr(other_gpus.platform, "system", lambda: "Linux")
    listed = {"a": ("0x030000", "0x1002"), "b": ("0x030200", "0x10de"), "c": ("0x020000", "0x8086")}
    for name, (kind, vendor) in listed.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(f"{kind}\n")
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "d").mkdir()
    assert other_gpus.seen(tmp_path) == ("AMD",)  # neither NVIDIA's nor Intel's network card
    assert other_gpus.seen(tmp_path / "nowhere") == ()
