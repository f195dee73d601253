"""The renderer of the rehearsal world: one object on a floor under a time of day.

It marches rays through distance fields in numpy, float32. A picture of 128×128 with 2×2 samples a
pixel takes about 30 ms of one core, needs no weights, and is the same on every machine up to
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from realkit.base.door import check_kind, door
from realkit.base.errors import RequestError, shown
from realkit.rehearsal.wording import ATTRIBUTES, Scene, parse

NATIVE = 128  # the rehearsal models' native size, pixels
LARGEST = 2048  # pixels a side; a picture of it takes about 2 GiB while it is rendered
SUPERSAMPLES = 2  # a pixel, along each side
TAN_HALF_FOV = 0.404  # 44 degrees from top to bottom
FILL = (0.38, 0.57)  # share of the picture's height that the object takes

ALBEDO = {  # linear RGB
    "red": (0.68, 0.025, 0.03), "orange": (0.86, 0.24, 0.02), "yellow": (0.84, 0.66, 0.03),
    "green": (0.03, 0.36, 0.06),
    "cyan": (0.05, 0.60, 0.66), "blue": (0.03, 0.09, 0.66), "purple": (0.30, 0.04, 0.50),
    "white": (0.84, 0.84, 0.84),
}  # fmt: skip


@dataclass(frozen=True)
class Light:
    """A time of day: linear RGB radiance; the sun's or moon's elevation is a range in degrees."""

    elevation: tuple[float, float]
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    horizon: tuple[float, float, float]
    zenith: tuple[float, float, float]


LIGHTS = {
    "dawn": Light(
        (18, 28), (1.05, 0.78, 0.70), (0.40, 0.40, 0.52), (0.98, 0.66, 0.66), (0.36, 0.48, 0.82)
    ),
    "noon": Light(
        (52, 66), (1.35, 1.30, 1.20), (0.34, 0.42, 0.55), (0.62, 0.80, 0.98), (0.10, 0.32, 0.82)
    ),
    "sunset": Light(
        (16, 26), (1.30, 0.72, 0.34), (0.34, 0.26, 0.30), (1.00, 0.40, 0.08), (0.26, 0.12, 0.32)
    ),
    "night": Light(
        (35, 50),
        (0.20, 0.25, 0.36),
        (0.055, 0.075, 0.14),
        (0.030, 0.050, 0.13),
        (0.006, 0.010, 0.035),
    ),
}
FLOOR_TONES = {  # mean linear albedo, as a shiny object sees the floor
    "wooden": (0.34, 0.19, 0.09), "checkered": (0.33, 0.33, 0.34), "grass": (0.13, 0.27, 0.05),
    "sand": (0.58, 0.44, 0.26),
}  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """All that the seed decides: camera, light and surface.

    Angles are in radians, lengths in half object heights.
    """

    yaw: float
    elevation: float
    fill: float
    shift: tuple[float, float]
    sun_azimuth: float
    sun_height: float
    exposure: float
    floor_turn: float
    floor_offset: tuple[float, float]
    waves: np.ndarray = field(repr=False)
    free: Scene = field(repr=False)

    @classmethod
    def draw(cls, seed: int) -> Pose:
        rng = np.random.default_rng([7, seed])
        side = rng.choice((-1.0, 1.0))
        return cls(
            yaw=rng.uniform(0, 2 * np.pi),
            elevation=np.radians(rng.uniform(10, 17)),
            fill=rng.uniform(*FILL),
            shift=(rng.uniform(-0.22, 0.22), rng.uniform(0.06, 0.22)),
            sun_azimuth=side * np.radians(rng.uniform(30, 75)),
            sun_height=rng.uniform(),
            exposure=rng.uniform(0.93, 1.07),
            floor_turn=np.radians(rng.uniform(-32, 32)),
            floor_offset=tuple(rng.uniform(-20, 20, 2)),
            waves=np.stack(
                [rng.uniform(0, np.pi, 6), rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.8, 1.25, 6)]
            ).astype(np.float32),
            free=Scene(*(rng.choice(values) for values in ATTRIBUTES.values())),
        )


@door
def render(caption: str, seed: int, size: int = NATIVE) -> Image.Image:
    """The picture that a caption describes, RGB, size×size; the seed gives pose, light and surface.

    The seed also chooses attributes that the caption leaves out. Raises RequestError for a caption
    that names no attribute or two values of one, and for a size below 8.
    """
    return Image.fromarray(_trace(caption, seed, size)[0])


@door
def mask(caption: str, seed: int, size: int = NATIVE) -> np.ndarray:
    """The object's pixels in `render(caption, seed, size)`: bool, (size, size).

    A pixel is true where the object covers at least half of it.
    """
    return _trace(caption, seed, size, shade=False)[1]


@door
def complete(caption: str, seed: int) -> Scene:
    """The scene that `render(caption, seed)` shows, with the attributes that the seed chooses."""
    check_kind("seed", seed, int)
    if seed < 0:
        raise RequestError(f"seed {shown(seed)}: expected 0 or more")
    said, free = parse(caption), Pose.draw(seed).free
    return Scene(*(getattr(said, name) or str(getattr(free, name)) for name in ATTRIBUTES))


def _trace(caption: str, seed: int, size: int, shade: bool = True) -> tuple[np.ndarray, np.ndarray]:
    check_kind("size", size, int)
    if not 8 <= size <= LARGEST:
        raise RequestError(f"Size {shown(size)} cannot be rendered: expected 8 to {LARGEST} pixels")
    scene, pose = complete(caption, seed), Pose.draw(seed)
    fine = size * SUPERSAMPLES
    eye, rays, pixel = _camera(scene.shape, pose, fine)
    depth = _march(scene.shape, pose, eye, rays)
    hit = np.isfinite(depth)
    covered = _shrink(hit.reshape(fine, fine).astype(np.float32)) >= 0.5
    if not shade:
        return np.empty(0), covered
    light = LIGHTS[scene.time]
    sun = _sun(light, pose)
    linear = np.empty_like(rays)
    sky = ~hit & (rays[:, 1] >= -1e-3)
    ground = ~hit & ~sky
    linear[sky] = _sky(light, rays[sky])
    linear[ground] = _ground(scene, pose, light, sun, eye, rays[ground], pixel)
    linear[hit] = _object(scene, pose, light, sun, eye + rays[hit] * depth[hit, None], rays[hit])
    image = _shrink(_encode(linear * pose.exposure).reshape(fine, fine, 3))
    return np.round(image * 255).astype(np.uint8), covered


def _shrink(fine: np.ndarray) -> np.ndarray:
    size = fine.shape[0] // SUPERSAMPLES
    return fine.reshape(size, SUPERSAMPLES, size, SUPERSAMPLES, *fine.shape[2:]).mean((1, 3))


def _encode(linear: np.ndarray) -> np.ndarray:
    """Linear radiance to sRGB in [0, 1] (IEC 61966-2-1), with a soft shoulder above 0.8."""
    over = np.maximum(linear - 0.8, 0)
    linear = np.minimum(linear, 0.8) + 0.2 * (1 - np.exp(-over / 0.2))
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    )


# --- the camera


def _camera(shape: str, pose: Pose, fine: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The eye, unit rays (fine², 3) row by row from the top, and a sample's width at distance 1."""
    back = np.array([0, np.sin(pose.elevation), np.cos(pose.elevation)])
    right, up = np.array([1.0, 0, 0]), np.cross(back, [1.0, 0, 0])
    centre = np.array([0, HEIGHTS[shape] / 2, 0])
    outline = _outline(shape, pose.yaw) - centre
    distance = 6.0
    for _ in range(8):  # the distance at which the projected outline fills its share of the height
        y = outline @ up / ((distance - outline @ back) * TAN_HALF_FOV)
        distance *= (y.max() - y.min()) / 2 / pose.fill
    grid = ((np.arange(fine) + 0.5) / fine * 2 - 1) * TAN_HALF_FOV
    x, y = np.meshgrid(grid - pose.shift[0] * TAN_HALF_FOV, -grid + pose.shift[1] * TAN_HALF_FOV)
    rays = (-back + x[..., None] * right + y[..., None] * up).reshape(-1, 3)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return (
        (centre + distance * back).astype(np.float32),
        rays.astype(np.float32),
        2 * TAN_HALF_FOV / fine,
    )


def _outline(shape: str, yaw: float) -> np.ndarray:
    """Points (N, 3) whose projection spans the object's extent."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = np.stack([np.cos(turn), np.zeros_like(turn), np.sin(turn)], 1)
    match shape:
        case "sphere":
            tilt = np.linspace(-1, 1, 25)[:, None, None]
            return (np.sqrt(1 - tilt**2) * ring + (tilt + 1) * np.array([0, 1, 0])).reshape(-1, 3)
        case "cube":
            corners = np.stack(np.meshgrid([-1, 1], [0, 2], [-1, 1]), -1).reshape(-1, 3) * CUBE
            c, s = np.cos(yaw), np.sin(yaw)
            return corners @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        case "cylinder":
            return np.concatenate([ring * CYLINDER, ring * CYLINDER + [0, HEIGHTS[shape], 0]])
        case _:
            return np.concatenate([ring * CONE, [[0, HEIGHTS[shape], 0]]])


# --- distance fields (the closed forms of Inigo Quilez, "distance functions")
# ----------------------------------------

CUBE, CYLINDER, CONE = 0.85, 0.78, 1.0  # half side, radius, base radius
HEIGHTS = {"sphere": 2.0, "cube": 2 * CUBE, "cylinder": 1.9, "cone": 2.0}
ROUND = 0.05


def _distance(shape: str, yaw: float, p: np.ndarray) -> np.ndarray:
    """Signed distance (N,) from points (N, 3) to the object on y = 0 at the origin."""
    half = HEIGHTS[shape] / 2
    x, y, z = p[:, 0], p[:, 1] - half, p[:, 2]
    if shape == "sphere":
        return np.sqrt(x * x + y * y + z * z) - 1
    if shape == "cube":
        c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
        a, b, d = (np.abs(v) - (CUBE - ROUND) for v in (c * x + s * z, y, c * z - s * x))
        outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2 + np.maximum(d, 0) ** 2)
        return outside + np.minimum(np.maximum(a, np.maximum(b, d)), 0) - ROUND
    radius = np.sqrt(x * x + z * z)
    if shape == "cylinder":
        a, b = radius - (CYLINDER - ROUND), np.abs(y) - (half - ROUND)
        return (
            np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
            + np.minimum(np.maximum(a, b), 0)
            - ROUND
        )
    base, top, tall = CONE - ROUND, np.float32(0.02), half - ROUND
    ax, ay = radius - np.minimum(radius, np.where(y < 0, base, top)), np.abs(y) - tall
    kx, ky = top - base, 2 * tall
    t = np.clip(((top - radius) * kx + (tall - y) * ky) / (kx * kx + ky * ky), 0, 1)
    bx, by = radius - top + kx * t, y - tall + ky * t
    sign = np.where((bx < 0) & (ay < 0), -1, 1)
    return sign * np.sqrt(np.minimum(ax * ax + ay * ay, bx * bx + by * by)) - ROUND


def _march(shape: str, pose: Pose, eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance along each ray to the object, infinite where it misses."""
    depth = np.full(len(rays), np.inf, np.float32)
    near, ids = _bounded(shape, np.broadcast_to(eye, rays.shape), rays, 1.6)
    for _ in range(64):
        p = eye + rays[ids] * near[:, None]
        step = _distance(shape, pose.yaw, p)
        done = step < 1e-3
        depth[ids[done]] = near[done]
        alive = ~done & (np.einsum("ij,ij->i", p - eye, rays[ids]) < np.linalg.norm(eye) + 2)
        ids, near = ids[alive], (near + step)[alive]
        if not len(ids):
            break
    return depth


def _bounded(
    shape: str, start: np.ndarray, rays: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter the sphere around the object: distances, and the indices of those rays."""
    offset = start - np.array([0, HEIGHTS[shape] / 2, 0], np.float32)
    along = -np.einsum("ij,ij->i", offset, rays)
    room = radius**2 - (np.einsum("ij,ij->i", offset, offset) - along**2)
    ids = np.flatnonzero((room > 0) & (along + np.sqrt(np.maximum(room, 0)) > 0))
    return np.maximum(along[ids] - np.sqrt(room[ids]), 0).astype(np.float32), ids


# --- light and surfaces


def _sun(light: Light, pose: Pose) -> np.ndarray:
    height = np.radians(np.interp(pose.sun_height, (0, 1), light.elevation))
    flat = np.cos(height)
    return np.array(
        [np.sin(pose.sun_azimuth) * flat, np.sin(height), np.cos(pose.sun_azimuth) * flat],
        np.float32,
    )


def _sky(light: Light, rays: np.ndarray) -> np.ndarray:
    rise = np.clip(rays[:, 1:2] / 0.34, 0, 1) ** 0.75
    return (
        np.asarray(light.horizon, np.float32) * (1 - rise)
        + np.asarray(light.zenith, np.float32) * rise
    )


def _object(
    scene: Scene, pose: Pose, light: Light, sun: np.ndarray, p: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    tetra = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    normal = sum(_distance(scene.shape, pose.yaw, p + 2e-3 * k)[:, None] * k for k in tetra)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    facing = np.maximum(normal @ sun, 0)[:, None]
    upward = (0.5 + 0.5 * normal[:, 1:2]).astype(np.float32)
    crevice = 0.55 + 0.45 * np.clip(p[:, 1:2] / 0.7, 0, 1)
    floor = np.array(FLOOR_TONES[scene.floor], np.float32) * (
        np.asarray(light.sun) * max(sun[1], 0.3) + light.ambient
    )
    ambient = np.asarray(light.ambient, np.float32) * (0.35 + 0.65 * upward) + 0.45 * floor * (
        1 - upward
    )
    colour = np.array(ALBEDO[scene.colour], np.float32) * (
        np.asarray(light.sun, np.float32) * facing + ambient * crevice
    )
    if scene.material == "matte":
        return colour
    cosine = np.clip(-np.einsum("ij,ij->i", normal, rays), 0, 1)[:, None]
    mirror = rays + 2 * cosine * normal
    fresnel = 0.16 + 0.60 * (1 - cosine) ** 4
    reach = 1 / (1 + np.exp(-18 * mirror[:, 1:2]))
    seen = _sky(light, np.maximum(mirror, 0)) * reach + floor * (1 - reach) * crevice
    glint = np.maximum(mirror @ sun, 0)[:, None]
    sparkle = 1.6 * glint**70 + 0.25 * glint**12
    return (
        colour * (1 - fresnel)
        + seen * fresnel
        + np.sqrt(np.asarray(light.sun, np.float32)) * sparkle
    )


def _ground(
    scene: Scene,
    pose: Pose,
    light: Light,
    sun: np.ndarray,
    eye: np.ndarray,
    rays: np.ndarray,
    pixel: float,
) -> np.ndarray:
    t = -eye[1] / rays[:, 1]
    p = eye + rays * t[:, None]
    p[:, 1] = 0
    blur = t * pixel / -rays[:, 1]  # how far one sample reaches along the floor
    albedo = _floor(scene.floor, pose, p, blur)
    contact = 1 - 0.55 * np.exp(-2.5 * np.maximum(_distance(scene.shape, pose.yaw, p), 0))
    lit = _unshadowed(scene.shape, pose, p, sun)
    radiance = np.asarray(light.sun, np.float32) * (max(float(sun[1]), 0.42) * lit)[:, None]
    colour = albedo * (radiance + np.asarray(light.ambient, np.float32) * contact[:, None])
    haze = (1 - np.exp(-np.maximum(t - 8, 0) / 22))[:, None].astype(np.float32)
    return colour * (1 - haze) + np.asarray(light.horizon, np.float32) * haze


def _unshadowed(shape: str, pose: Pose, p: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """The share of sunlight (N,) that reaches floor points: penumbra from the narrowest pass."""
    lit = np.ones(len(p), np.float32)
    directions = np.broadcast_to(sun, p.shape)
    t, ids = _bounded(shape, p, directions, 1.75)
    t = np.maximum(t, 0.02)
    for _ in range(28):
        gap = _distance(shape, pose.yaw, p[ids] + sun * t[:, None])
        lit[ids] = np.minimum(lit[ids], np.clip(0.5 + 5 * gap / t, 0, 1))
        t = t + np.clip(gap, 0.05, 0.5)
        alive = (lit[ids] > 0.01) & (t < 9)
        ids, t = ids[alive], t[alive]
        if not len(ids):
            break
    return lit * lit * (3 - 2 * lit)


def _floor(floor: str, pose: Pose, p: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Albedo (N, 3) of floor points; detail fades where a sample would step over it and alias."""
    c, s = np.float32(np.cos(pose.floor_turn)), np.float32(np.sin(pose.floor_turn))
    x = c * p[:, 0] + s * p[:, 2] + np.float32(pose.floor_offset[0])
    z = c * p[:, 2] - s * p[:, 0] + np.float32(pose.floor_offset[1])
    match floor:
        case "wooden":
            board = np.round(x / 0.9)
            gap = np.abs(x / 0.9 - board) * 0.9  # 0 in a board's middle, 0.45 at its edge
            seam = np.clip((gap - 0.40) / 0.05, 0, 1) * _visible(blur, 0.5)
            tone = 0.16 * np.sin(board * 12.9898 + pose.waves[1, 0]) * _visible(blur, 1.2)
            grain = 0.10 * np.sin(9 * x + 1.6 * np.sin(0.9 * z + board * 2.1)) * _visible(blur, 0.7)
            return _tone(floor, 1 + tone + grain) * (1 - 0.72 * seam)[:, None]
        case "checkered":
            edge = np.sin(np.pi * x / 1.5) * np.sin(np.pi * z / 1.5)
            side = np.clip(edge / np.clip(1.2 * blur, 0.03, 1), -1, 1) * _visible(blur, 3.0)
            return _tone(floor, 1 + 0.62 * side)
        case "grass":
            clump = np.tanh(1.6 * _waves(pose, x, z, 1.9, blur))
            blade = _waves(pose, z + 3.1, x, 0.75, blur)
            mixed = np.array([1.0, 0.85, 0.7], np.float32)
            return np.array(FLOOR_TONES[floor], np.float32) * (
                1 + (0.34 * clump + 0.16 * blade)[:, None] * mixed
            )
        case _:
            ripple = np.sin(4.2 * z + 1.1 * _waves(pose, x, z, 4.0, blur))
            return _tone(floor, 1 + 0.17 * np.tanh(1.5 * ripple) * _visible(blur, 1.5))


def _tone(floor: str, factor: np.ndarray) -> np.ndarray:
    return np.array(FLOOR_TONES[floor], np.float32) * factor[:, None]


def _visible(blur: np.ndarray, period: float) -> np.ndarray:
    """How much of a pattern of this period survives a sample of this reach."""
    return np.exp(-((1.6 * blur / period) ** 2))


def _waves(pose: Pose, x: np.ndarray, z: np.ndarray, period: float, blur: np.ndarray) -> np.ndarray:
    """A smooth random field of unit variance: six plane waves about one period long."""
    total = np.zeros_like(x)
    for angle, phase, stretch in pose.waves.T:
        k = 2 * np.pi / (period * stretch)
        total += np.sin(k * (np.cos(angle) * x + np.sin(angle) * z) + phase)
    return total * np.float32((2 / 6) ** 0.5) * _visible(blur, period)
