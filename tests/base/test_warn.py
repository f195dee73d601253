import subprocess
import sys

import pytest

OLD = """
import json, shutil, sys, warnings
from pathlib import Path
import realkit as rk
from realkit.apps.training.ship import WEIGHTS

place = Path(sys.argv[1])
shutil.copytree(WEIGHTS / "base", place)
for part in ("vae", "text_encoder", "tokenizer"):
    shutil.copytree(WEIGHTS / part, place / part)
path = place / "scheduler" / "scheduler_config.json"
config = json.loads(path.read_text())
config.pop("steps_offset")  # as the oldest checkpoints have it: diffusers deprecates that
path.write_text(json.dumps(config))
rk.load(str(place))("a cone", steps=1, size=64)
warnings.warn("of my own code", FutureWarning)
"""


@pytest.mark.slow
def test_deprecations_of_libraries_stay_out_of_sight_and_a_persons_own_do_not(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", OLD, str(tmp_path / "old")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "steps_offset" not in ran.stderr and "of my own code" in ran.stderr


def test_what_a_library_deprecates_is_ignored_by_its_module():
    code = (
        "import warnings, realkit\n"
        "for name in ('diffusers.models.unet', 'torch', 'torchsde.x', 'torchy', 'mine'):\n"
        "    warnings.warn_explicit(f'from {name}', FutureWarning, 'file', 1, module=name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heard = [line.split("from ")[1] for line in ran.stderr.splitlines() if "from " in line]
    assert heard == ["torchy", "mine"]
