"""How like its truth a restored picture is: each measure takes the truth and what was restored,
both RGB of one size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from realkit.base.errors import one_line
from realkit.weights.sources import inputs

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

# torchvision's weights, the backbone of LPIPS; the digits are the beginning of their SHA-256.
ALEXNET = "alexnet-owt-7be5be79.pth"
ADDRESS = f"https://download.pytorch.org/models/{ALEXNET}"


def psnr(truth: Image, restored: Image, shave: int = 0) -> float:
    """Peak signal-to-noise ratio over RGB, dB: 10·log10(255² / mean squared error), infinite for
    equal pictures. `shave` pixels of border do not count."""
    import numpy as np

    inner = np.s_[shave : truth.height - shave, shave : truth.width - shave]
    error = np.mean((np.asarray(truth, float)[inner] - np.asarray(restored, float)[inner]) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def psnr_y(truth: Image, restored: Image, shave: int = 0) -> float:
    """PSNR as papers on super-resolution give it, dB: of the luma Y alone, without `shave` pixels
    of border, as many as the scale (Timofte et al. 2014; EDSR, arXiv 1707.02921).

    Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1] is BT.601's of levels 16 to 235,
    as MATLAB's rgb2ycbcr has it; the peak is 255 all the same.
    """
    import numpy as np

    inner = np.s_[shave : truth.height - shave, shave : truth.width - shave]
    weights = np.array([65.481, 128.553, 24.966]) / 255
    difference = np.asarray(truth, float)[inner] - np.asarray(restored, float)[inner]
    error = np.mean((difference @ weights) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(truth: Image, restored: Image) -> float:
    """Structural similarity (Wang et al. 2004), with the paper's Gaussian window of σ 1.5: the mean
    over the three colours."""
    import numpy as np
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(
        np.asarray(truth),
        np.asarray(restored),
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    return float(similarity)


def sharpness(truth: Image, restored: Image) -> float | None:
    """Mean gradient (Sobel, of luma) of the restored picture over the truth's, where the truth's is
    in its steepest twentieth. None without any edge."""
    from numpy import quantile

    steep, restored_steep = _gradient(truth), _gradient(restored)
    edges = steep >= max(float(quantile(steep, 0.95)), 0.01)
    return float(restored_steep[edges].mean() / steep[edges].mean()) if edges.any() else None


def _gradient(image: Image) -> npt.NDArray[Any]:
    import numpy as np
    from skimage.filters import sobel

    return sobel(np.asarray(image.convert("L"), float) / 255)  # type: ignore[no-any-return]


def colour_shift(truth: Image, restored: Image, block: int = 16) -> float:
    """Mean colour difference ΔE00 (CIEDE2000, Sharma et al. 2005) between means over blocks of 16
    pixels, where detail no longer counts; 1 is just noticed."""
    from PIL import Image
    from skimage.color import deltaE_ciede2000, rgb2lab

    size = max(1, truth.width // block), max(1, truth.height // block)
    before, after = (
        rgb2lab(image.resize(size, Image.Resampling.BOX)) for image in (truth, restored)
    )
    return float(deltaE_ciede2000(before, after).mean())


def lpips(download: bool = False) -> Callable[[Image, Image], float] | str:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1, AlexNet) as a measure, or in one
    line why it is unavailable.

    Needs the package lpips, and torchvision's AlexNet: attached as an input, in torch's cache, or
    downloaded (233 MB) where `download` asks for it.
    """
    import numpy as np
    import torch

    try:
        from lpips import LPIPS
    except ImportError:
        return "the package lpips is not installed: pip install lpips"
    cached = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
    path = inputs.file(ALEXNET, "") or (cached if cached.is_file() else None)
    if path is None and not download:
        return (
            f"its backbone {ALEXNET} (233 MB) is neither an input nor in {cached.parent.name!r} of"
            " torch's cache: ask for its download, or attach it"
        )
    try:
        weights = _alexnet(path)
        with warnings.catch_warnings():  # it builds AlexNet in a way that torchvision deprecates
            warnings.simplefilter("ignore")
            network = LPIPS(net="alex", pnet_rand=True, verbose=False)
        names = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
        network.net.load_state_dict({name: weights[source] for name, source in names.items()})
    except Exception as error:  # a download or a damaged file; the other measures do without it
        return f"its backbone does not load: {one_line(error, 160)}"

    def tensor(image: Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1

    def distance(truth: Image, restored: Image) -> float:
        with torch.inference_mode():
            return float(network(tensor(truth), tensor(restored)))

    return distance


def _alexnet(path: Path | None) -> dict[str, Any]:
    """The backbone's weights from a file, or downloaded."""
    import torch

    if path:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    return torch.hub.load_state_dict_from_url(
        ADDRESS, map_location="cpu", check_hash=True, weights_only=True, progress=False
    )


class Measure(NamedTuple):
    better: Literal["higher", "lower", "nearer 1"]
    unit: str
    range: str
    about: str


MEASURES = {
    "psnr_db": Measure("higher", "dB", "0 to ∞", "peak signal-to-noise ratio over RGB"),
    "psnr_shaved_db": Measure(
        "higher", "dB", "0 to ∞", "the same without a border of `scale` pixels"
    ),
    "psnr_y_db": Measure(
        "higher", "dB", "0 to ∞", "PSNR of the BT.601 luma without that border, as papers have it"
    ),
    "ssim": Measure("higher", "none", "−1 to 1", "structural similarity, Gaussian window"),
    "lpips": Measure(
        "lower", "none", "0 up", "learned perceptual distance, AlexNet; empty where unavailable"
    ),
    "sharpness": Measure(
        "nearer 1",
        "of the truth's",
        "0 up",
        "steepness of the truth's edges: below 1 blurred, above 1 oversharpened",
    ),
    "colour_shift": Measure(
        "lower", "ΔE00", "0 to 100", "colour difference of means over 16 pixels; 1 is just noticed"
    ),
}
