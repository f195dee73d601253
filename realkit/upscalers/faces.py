"""Restored faces: found (or given by their landmarks), aligned, redrawn by GFPGAN or CodeFormer,
and blended back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realkit.base.errors import RequestError, one_line, shown

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SIDE = 512  # pixels of the square in which both networks were trained
# Left eye, right eye, nose, left and right corner of the mouth in it, as seen in the picture, of
# FFHQ's faces: facexlib's face_restoration_helper.py
TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
FEATHER = 64.0  # pixels of the square over which a restored face fades in
LOOKS = (
    1280,
    640,
    320,
    # longer sides at which faces are looked for, until one is found: YuNet knows faces of about 10
    # to
    # 300 pixels
)
YUNET = "face_detection_yunet_2023mar.onnx of OpenCV's model zoo"
SURE = 0.9  # YuNet's score from which a face counts, as in OpenCV's own sample
# pixels between the eyes of the smallest face found that is restored, as GFPGAN's inference has it
EYES = 5.0
# correlation with TEMPLATE; a full profile has 0.76, swapped eyes 0.53, left and right swapped
# throughout 0.15
FACELIKE = 0.6


def detect(picture: np.ndarray, detector: Path) -> np.ndarray:
    """The landmarks of a picture's faces: uint8 RGB (H, W, 3) → (faces, 5, 2) in its pixels, in
    TEMPLATE's order. RequestError for weights not YuNet's."""
    import cv2

    height, width = picture.shape[:2]
    try:
        model = np.frombuffer(
            detector.read_bytes(), np.uint8
        )  # by its content: a cache's file may bear any name
        network = cv2.FaceDetectorYN.create(
            "onnx", model, np.zeros(0, np.uint8), (SIDE, SIDE), SURE
        )
        for side in sorted({min(look, max(height, width)) for look in LOOKS}, reverse=True):
            size = [max(1, round(length * side / max(height, width))) for length in (width, height)]
            network.setInputSize(size)
            rows = network.detect(
                cv2.cvtColor(
                    cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR
                )
            )[1]
            if rows is not None:
                break
    except (OSError, cv2.error) as error:
        raise RequestError(
            f"Face detector {detector.name!r} cannot be used: expected {YUNET} and OpenCV 4.8 or"
            " later"
        ) from error
    found = (ordered(np.zeros((0, 15)) if rows is None else rows) + 0.5) * (
        np.array([width, height]) / size
    ) - 0.5
    return np.array(
        [
            face
            for face in found
            if np.hypot(*(face[1] - face[0])) >= EYES and fit(face)[1] >= FACELIKE
        ]
    ).reshape(-1, 5, 2)


def ordered(found: np.ndarray) -> np.ndarray:
    """YuNet's rows (faces, 15) → landmarks (faces, 5, 2) in TEMPLATE's order: it has the box first,
    then the person's right side, the picture's left."""
    return found[:, 4:14].reshape(-1, 5, 2).astype(float)


def given(landmarks: Any, size: tuple[int, int]) -> np.ndarray:
    """Landmarks that a person gives for a picture of (width, height), as (faces, 5, 2). Raises
    RequestError where they are no face's."""
    faces = list(landmarks) if isinstance(landmarks, (list, tuple, np.ndarray)) else [landmarks]
    for number, face in enumerate(faces, 1):
        try:
            points = np.asarray(face, float)
        except (TypeError, ValueError):
            points = np.zeros(0)  # a ragged list, or words
        if points.shape != (5, 2) or not np.isfinite(points).all():
            wrong = (
                "expected five (x, y): the picture's left eye, right eye, nose, left corner of the"
                " mouth, right corner of the mouth"
            )
        elif (points < 0).any() or (points > size).any():
            low, high = (
                [round(float(number), 1) for number in end]
                for end in (points.min(0), points.max(0))
            )
            wrong = (
                f"they reach from {low} to {high}, expected within the picture's {size[0]} ×"
                f" {size[1]} pixels"
            )
        elif fit(points)[1] < FACELIKE:
            wrong = (
                "they lie as no face's do, expected the picture's left eye, right eye, nose, left"
                " corner of the mouth, right corner of the mouth"
            )
        else:
            continue
        raise RequestError(f"Landmarks of face {number}, {shown(face)}: {wrong}")
    return np.array(faces, float).reshape(-1, 5, 2)


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
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]), float(
        abs(common) / np.sqrt(spread * np.vdot(target, target).real)
    )


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
    corners = np.array([[x, y, 1] for x in (-0.5, SIDE - 0.5) for y in (-0.5, SIDE - 0.5)]) @ back.T
    left, top = (int(low) for low in np.maximum(np.floor(corners.min(0)), 0))
    right, bottom = (
        int(high) for high in np.minimum(np.ceil(corners.max(0)) + 1, picture.shape[1::-1])
    )
    if left >= right or top >= bottom:
        return picture
    y, x = (axis.astype(np.float32) for axis in np.ogrid[top:bottom, left:right])
    mask = np.ones((bottom - top, right - left), np.float32)
    for a, b, c in matrix.astype(np.float32):
        inside = (
            a * x + b * y + c + 0.5
        )  # the square reaches from 0 to SIDE, pixels have their centres at halves
        ramp = np.clip(np.minimum(inside, SIDE - inside) / feather, 0, 1)
        mask *= ramp * ramp * (3 - 2 * ramp)
    restored = _warp(face, back - [[0, 0, left], [0, 0, top]], (right - left, bottom - top))
    before = picture[top:bottom, left:right].astype(np.float32)
    made = picture.copy()
    made[top:bottom, left:right] = np.rint(before + mask[..., None] * (restored - before))
    return made


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
        matrix = matrix @ np.array(
            [[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]]
        )  # pixels have their centres at halves
    return cv2.warpAffine(
        picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


class Restorer:
    """A network that restores faces, on a device, in float32: spandrel knows float16 to fail for
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

    def __call__(self, image: Image, settings: Mapping[str, Any]) -> Image:
        """The RGB picture with its faces restored, or itself where it has none; `used` then tells
        how many.

        `landmarks`: five (x, y) for each face in pixels, instead of detection. `weight`:
        CodeFormer's fidelity, from 0, the best face, to 1, the likest.
        """
        from PIL import Image

        weight = settings.get("weight", 0.5)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise RequestError(
                f"Face restoration's weight {shown(weight)}: expected a number from 0, the best"
                " face, to 1, the face most like the one given"
            )
        picture = np.array(image.convert("RGB"))
        if settings.get("landmarks") is not None:
            faces = given(settings["landmarks"], image.size)
        elif self.detector is not None:
            faces = detect(picture, self.detector)
        else:
            raise RequestError(
                f"Faces are found only with a detector's weights: give {YUNET}, or landmarks=[[(x,"
                " y), …], …], five points for each face"
            )
        self.used = {"faces": len(faces), "dtype": "float32"}
        made = picture
        for landmarks in faces:
            face, matrix = align(picture, landmarks)
            made = blend(made, self._restored(face, float(weight)), matrix)
        return Image.fromarray(made) if len(faces) else image

    def _restored(self, face: np.ndarray, weight: float) -> np.ndarray:
        import torch

        x = torch.from_numpy(face).permute(2, 0, 1)[None].to(self.on, torch.float32) / 127.5 - 1
        with (
            torch.inference_mode()
        ):  # with the noise in its file: GFPGAN draws its own at each call otherwise
            y = self.network(x, weight=weight, randomize_noise=False, return_rgb=False)[0][0]
        return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def load(path: Path, detector: Path | None, on: torch.device) -> Restorer:
    """A Restorer from GFPGAN's (1.2 to 1.4) or CodeFormer's .safetensors, or .pth by spandrel's
    restricted unpickler. RequestError for any other file."""
    from spandrel import MAIN_REGISTRY, ModelLoader

    for file, role in ((path, "restorer"), (detector, "detector")):
        if file is not None and not file.is_file():
            raise RequestError(f"Face {role} {file.name!r} is not there: expected its weights")
    try:
        weights = ModelLoader().load_state_dict_from_file(path)
        known = MAIN_REGISTRY["GFPGAN"]
        if {"idx_pred_layer.1.weight", "quantize.embedding.weight"} <= set(weights):
            from spandrel_extra_arches import EXTRA_REGISTRY

            known = EXTRA_REGISTRY["CodeFormer"]
        if not known.detect(weights):
            raise ValueError("expected weights of GFPGAN (1.2 to 1.4) or CodeFormer")
        return Restorer(known.architecture.load(weights).model, detector, on)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"Face restorer {path.name!r} is a CodeFormer, which needs a package more: pip install"
            " spandrel_extra_arches"
        ) from error
    except (
        Exception
    ) as error:  # spandrel raises what the file provokes: each means that it is not usable here
        raise RequestError(
            f"Face restorer {path.name!r} does not load: {one_line(error, 200)}"
        ) from error
