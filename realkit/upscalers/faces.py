"""Restored faces: found (or given by their landmarks), aligned, redrawn by GFPGAN or CodeFormer,
and blended back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.base.errors import RequestError, one_line, shown
from realkit.upscalers.settings import Settings
from realkit.upscalers.table import DETECTOR
from realkit.upscalers.tool import LoadRequest
from realkit.weights.sources import huggingface, inputs

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SIDE = 512  # pixels of the square in which both networks were trained
# Left eye, right eye, nose, left and right corner of the mouth in that square, as seen in the
# picture, of FFHQ's faces: facexlib's face_restoration_helper.py
TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
POINTS = (
    "the picture's left eye, right eye, nose, left corner of the mouth, right corner of the mouth"
)
FEATHER = 64.0  # pixels of the square over which a restored face fades in
# Longer sides at which faces are looked for, until one is found: YuNet detects faces of about 10 to
# 300 pixels.
LOOKS = (1280, 640, 320)
YUNET = "face_detection_yunet_2023mar.onnx of OpenCV's model zoo"
SURE = 0.9  # YuNet's score from which a face counts, as in OpenCV's own sample
# Pixels between the eyes of the smallest detected face that is restored, as in GFPGAN's inference.
EYES = 5.0
# Least correlation with TEMPLATE: a full profile has 0.76, swapped eyes 0.53, left and right
# swapped throughout 0.15.
FACELIKE = 0.6


def detect(picture: np.ndarray, detector: Path) -> np.ndarray:
    """The landmarks of a picture's faces: uint8 RGB (H, W, 3) → (faces, 5, 2) in its pixels, in
    TEMPLATE's order. Raises RequestError for weights that are not YuNet's."""
    import cv2

    height, width = picture.shape[:2]
    longer = max(height, width)
    try:
        # Read here, since a cache's file may bear any name, and OpenCV judges a path by its suffix.
        weights = np.frombuffer(detector.read_bytes(), np.uint8)
        network = cv2.FaceDetectorYN.create(
            "onnx", weights, np.zeros(0, np.uint8), (SIDE, SIDE), SURE
        )
        for side in sorted({min(look, longer) for look in LOOKS}, reverse=True):
            size = [max(1, round(length * side / longer)) for length in (width, height)]
            network.setInputSize(size)
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            rows = network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
            if rows is not None:
                break
    except (OSError, cv2.error) as error:
        raise RequestError(
            f"Face detector {detector.name!r} cannot be used: expected {YUNET} and OpenCV 4.8 or"
            " later"
        ) from error
    if rows is None:
        return np.zeros((0, 5, 2))
    # Pixels have their centres at halves.
    faces = (ordered(rows) + 0.5) * (np.array([width, height]) / size) - 0.5
    return np.array([face for face in faces if _restorable(face)]).reshape(-1, 5, 2)


def _restorable(face: np.ndarray) -> bool:
    return bool(np.hypot(*(face[1] - face[0])) >= EYES and fit(face)[1] >= FACELIKE)


def ordered(rows: np.ndarray) -> np.ndarray:
    """YuNet's rows (faces, 15) → landmarks (faces, 5, 2) in TEMPLATE's order. A row has the box
    first, then the person's right side, which is the picture's left."""
    return rows[:, 4:14].reshape(-1, 5, 2).astype(float)


def checked_landmarks(landmarks: list[Any], size: tuple[int, int]) -> np.ndarray:
    """Landmarks that a person gives for a picture of (width, height), as (faces, 5, 2). Raises
    RequestError for landmarks of no face."""
    for number, face in enumerate(landmarks, 1):
        if wrong := _wrong(np.asarray(face, float), size):
            raise RequestError(f"Landmarks of face {number}, {shown(face)}: {wrong}")
    return np.array(landmarks, float).reshape(-1, 5, 2)


def _wrong(points: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong with the landmarks of a face; "" where nothing is."""
    if points.shape != (5, 2) or not np.isfinite(points).all():
        return f"expected five (x, y): {POINTS}"
    if (points < 0).any() or (points > size).any():
        low, high = points.min(0).round(1).tolist(), points.max(0).round(1).tolist()
        return (
            f"they reach from {low} to {high}, expected within the picture's {size[0]} × {size[1]}"
            " pixels"
        )
    if fit(points)[1] < FACELIKE:
        return f"they do not lie as a face's do, expected {POINTS}"
    return ""


def fit(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """The least-squares similarity (2, 3) from landmarks (5, 2) to TEMPLATE (Umeyama 1991), and
    their correlation with it, in [0, 1].

    Points are complex numbers: z → a z + b with a = Σ z̄ t / Σ |z|² about the means. Raises
    RequestError for points in one spot.
    """
    z, t = (np.asarray(points, float) @ [1, 1j] for points in (landmarks, TEMPLATE))
    about, target = z - z.mean(), t - t.mean()
    spread = np.vdot(about, about).real
    if spread < len(z):
        raise RequestError(
            f"The landmarks of a face lie all in one spot, at ({z[0].real:g}, {z[0].imag:g}):"
            " expected eyes, nose and mouth apart"
        )
    common = np.vdot(about, target)
    a = common / spread
    b = t.mean() - a * z.mean()
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return matrix, float(abs(common) / np.sqrt(spread * np.vdot(target, target).real))


def align(picture: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face with these landmarks (5, 2) of a picture (H, W, 3), upright in a square (512, 512,
    3), and the matrix (2, 3) from picture to square."""
    matrix = fit(landmarks)[0]
    return _warp(picture, matrix, (SIDE, SIDE)), matrix


def blend(
    picture: np.ndarray, face: np.ndarray, matrix: np.ndarray, feather: float = FEATHER
) -> np.ndarray:
    """The picture with a face put back where `align` took it from by this matrix, fading in
    smoothly over `feather` of the square's pixels inside its edge."""
    import cv2

    back = cv2.invertAffineTransform(matrix)
    near, far = -0.5, SIDE - 0.5
    square = np.array([[near, near, 1], [near, far, 1], [far, near, 1], [far, far, 1]])
    corners = square @ back.T
    left, top = np.maximum(np.floor(corners.min(0)), 0).astype(int).tolist()
    edge = np.minimum(np.ceil(corners.max(0)) + 1, picture.shape[1::-1])
    right, bottom = edge.astype(int).tolist()
    if left >= right or top >= bottom:
        return picture
    y, x = (axis.astype(np.float32) for axis in np.ogrid[top:bottom, left:right])
    mask = np.ones((bottom - top, right - left), np.float32)
    for a, b, c in matrix.astype(np.float32):
        # The square reaches from 0 to SIDE; pixels have their centres at halves.
        inside = a * x + b * y + c + 0.5
        ramp = np.clip(np.minimum(inside, SIDE - inside) / feather, 0, 1)
        mask *= ramp * ramp * (3 - 2 * ramp)
    restored = _warp(face, back - [[0, 0, left], [0, 0, top]], (right - left, bottom - top))
    before = picture[top:bottom, left:right].astype(np.float32)
    result = picture.copy()
    result[top:bottom, left:right] = np.rint(before + mask[..., None] * (restored - before))
    return result


def _warp(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture under a similarity (2, 3), cut to (width, height) and reflected beyond its edge;
    where it shrinks, averaged by area to the new scale first."""
    import cv2

    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 1:
        height, width = picture.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        x, y = width / small[0], height / small[1]
        # Pixels have their centres at halves.
        matrix = matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return cv2.warpAffine(
        picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


class Restorer:
    """A network that restores faces, on a device, in float32: spandrel marks float16 as failing for
    both architectures.

    The network takes `(1, 3, 512, 512)` in [−1, 1] with `weight`, `randomize_noise` and
    `return_rgb` by name, and returns a tuple that begins with the face in the same shape and range,
    as GFPGAN's and CodeFormer's do. (spandrel's descriptors pass [0, 1] to them and clamp to it:
    half of their range.)
    """

    scale = 1

    def __init__(self, network: torch.nn.Module, detector: Path | None, on: torch.device) -> None:
        self.network, self.detector, self.on = network.float().eval().to(on), detector, on
        self.used: dict[str, Any] = {"faces": 0, "dtype": "float32"}

    def __call__(self, image: Image, settings: Settings) -> Image:
        """The RGB picture with its faces restored, or itself where it has none; `used` then says
        how many. Given `landmarks` are used instead of detection.

        Raises RequestError for landmarks of no face, and where neither they nor a detector is
        there.
        """
        from PIL import Image

        picture = np.array(image.convert("RGB"))
        if settings.landmarks is not None:
            faces = checked_landmarks(settings.landmarks, image.size)
        elif self.detector is not None:
            faces = detect(picture, self.detector)
        else:
            raise RequestError(
                f"Faces are detected only with a detector's weights: provide {YUNET}, or"
                " landmarks=[[(x, y), …], …], five points for each face"
            )
        self.used = {"faces": len(faces), "dtype": "float32"}
        result = picture
        for landmarks in faces:
            face, matrix = align(picture, landmarks)
            result = blend(result, self._restored(face, settings.weight), matrix)
        return Image.fromarray(result) if len(faces) else image

    def _restored(self, face: np.ndarray, weight: float) -> np.ndarray:
        import torch

        x = torch.from_numpy(face).permute(2, 0, 1)[None].to(self.on, torch.float32) / 127.5 - 1
        with torch.inference_mode():
            # With the noise in its file: else GFPGAN draws its own at each call.
            y = self.network(x, weight=weight, randomize_noise=False, return_rgb=False)[0][0]
        return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def load(request: LoadRequest) -> Restorer:
    return load_restorer(request.path, _detector(), request.device)


def _detector() -> Path | None:
    """The weights that detect faces, from the inputs or the hub; None where neither has them, so
    that landmarks must be given."""
    repository, _, file = DETECTOR.rpartition("/")
    if attached := inputs.file(file, repository):
        return attached
    try:
        commit, files = huggingface.file(repository, None, file)
        return huggingface.snapshot(repository, commit, files) / file
    except RequestError:
        return None


def load_restorer(path: Path, detector: Path | None, on: torch.device) -> Restorer:
    """A Restorer from GFPGAN's (1.2 to 1.4) or CodeFormer's .safetensors, or .pth by spandrel's
    restricted unpickler. Raises RequestError for any other file."""
    from spandrel import ModelLoader

    for file, role in ((path, "restorer"), (detector, "detector")):
        if file is not None and not file.is_file():
            raise RequestError(f"Face {role} {file.name!r} is not there: expected its weights")
    try:
        weights = ModelLoader().load_state_dict_from_file(path)
        support = _architecture(weights)
        if not support.detect(weights):
            raise ValueError("expected weights of GFPGAN (1.2 to 1.4) or CodeFormer")
        return Restorer(support.architecture.load(weights).model, detector, on)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"Face restorer {path.name!r} is a CodeFormer, which needs one more package: pip"
            " install spandrel_extra_arches"
        ) from error
    except Exception as error:  # spandrel raises what the file provokes: it is not usable here
        raise RequestError(
            f"Face restorer {path.name!r} does not load: {one_line(error, 200)}"
        ) from error


def _architecture(weights: Mapping[str, Any]) -> Any:
    """spandrel's support for the architecture that these weights may be of."""
    if {"idx_pred_layer.1.weight", "quantize.embedding.weight"} <= set(weights):
        from spandrel_extra_arches import EXTRA_REGISTRY

        return EXTRA_REGISTRY["CodeFormer"]
    from spandrel import MAIN_REGISTRY

    return MAIN_REGISTRY["GFPGAN"]
