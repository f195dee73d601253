import numpy as np
import pytest
import torch
from PIL import Image

import realkit as rk
from realkit.upscalers import faces
from realkit.upscalers.faces import FEATHER, Restorer
from realkit.upscalers.settings import Settings, checked
from tests.cuts import thinned

CPU = torch.device("cpu")
TEMPLATE = np.array(faces.TEMPLATE)
# side of the face square in pixels, its angle in degrees, where its middle lies in a picture of
# WIDTH × HEIGHT: the later ones stick out of it
PLACES = [
    (512, 0, (400, 300)),
    (180, 25, (330, 290)),
    (90, -70, (500, 200)),
    (900, 12, (420, 310)),
    (300, 180, (90, 300)),
    (400, -40, (690, 440)),
]
WIDTH, HEIGHT = 800, 600
# Fast: a face that is enlarged, one that is shrunk, one that sticks out; turned either way.
every_place = pytest.mark.parametrize(
    "place", thinned([(place,) for place in PLACES], [(PLACES[number],) for number in (1, 3, 5)])
)


class Brighter(torch.nn.Module):
    """A network that restores a face to itself, brighter by so many levels of 255."""

    def __init__(self, levels=0):
        super().__init__()
        self.levels, self.seen = levels, {}

    def forward(self, x, **settings):
        self.seen = settings | {
            "shape": tuple(x.shape),
            "dtype": x.dtype,
            "low": float(x.min()),
            "high": float(x.max()),
        }
        return x + self.levels / 127.5, []


def placed(side, angle, middle, points=TEMPLATE):
    """Points of the 512 square, where a face of this size, angle and middle has them."""
    turn = side / 512 * np.exp(1j * np.radians(angle))
    z = (points @ [1, 1j] - (1 + 1j) * 255.5) * turn + complex(*middle)
    return np.stack([z.real, z.imag], -1)


def smooth(width=WIDTH, height=HEIGHT):
    """A picture without edges: slow waves of three colours."""
    y, x = np.mgrid[:height, :width]
    return (
        np.stack(
            [127 + 100 * np.sin(x / a + y / b) for a, b in ((60, 80), (-90, 50), (70, -110))], -1
        )
        .round()
        .astype(np.uint8)
    )


def square(side, angle, middle):
    """Whether each pixel's centre lies within the face square, by the inverse of `placed`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    z = (x + 1j * y - complex(*middle)) / (side / 512 * np.exp(1j * np.radians(angle)))
    return np.maximum(abs(z.real), abs(z.imag)) < 256


def restored(picture, landmarks, network=None, **settings):
    made = Restorer(network or Brighter(), None, CPU)(
        Image.fromarray(picture), checked({"landmarks": landmarks, **settings})
    )
    return np.asarray(made, int)


@every_place
def test_landmarks_land_on_the_template(place):
    matrix, alike = faces.fit(placed(*place))
    assert abs(
        np.c_[placed(*place), np.ones(5)] @ matrix.T - TEMPLATE
    ).max() < 1e-6 and alike == pytest.approx(1)


@every_place
def test_a_dot_on_each_landmark_lands_within_half_a_pixel(place):
    picture, points = np.zeros((HEIGHT, WIDTH), np.float64), placed(*place)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    size = max(2, 6 * place[0] / 512)
    for at in points:
        picture += 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * size**2))
    face = faces.align(np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2), points)[
        0
    ][..., 0].astype(float)
    v, u = np.mgrid[:512, :512]
    for at, (px, py) in zip(TEMPLATE, points, strict=True):
        if not (20 < px < WIDTH - 20 and 20 < py < HEIGHT - 20):
            continue
        weight = face * (np.hypot(u - at[0], v - at[1]) < 4 * size * 512 / place[0])
        assert (
            abs(np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum() - at).max() < 0.5
        )


def test_the_fit_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    points = placed(200, 33, (400, 300)) + rng.normal(0, 6, (5, 2))
    rows = np.array([row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))])
    a, b, c, d = np.linalg.lstsq(rows, TEMPLATE.ravel(), rcond=None)[0]
    matrix, alike = faces.fit(points)
    assert abs(matrix - [[a, -b, c], [b, a, d]]).max() < 1e-8 and 0.9 < alike < 1


@every_place
def test_a_network_that_changes_nothing_changes_nothing(place):
    picture = smooth()
    difference = abs(restored(picture, [placed(*place)]) - picture)
    assert difference.max() <= 2 and not difference[~square(*place)].any()


@every_place
def test_outside_of_the_square_every_bit_stays_and_inside_the_face_is_all_new(place):
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    difference = restored(picture, [placed(*place)], Brighter(300)) - picture.astype(int)
    assert not difference[~square(*place)].any()
    core = square(place[0] * 0.74, *place[1:])  # 64 of 512 on each side fade in
    assert (restored(picture, [placed(*place)], Brighter(300))[core] == 255).all()


@every_place
def test_no_seam_is_seen(place):
    flat = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    made = restored(flat, [placed(*place)], Brighter(40))
    steepest = (
        1.5 * 40 / FEATHER * 512 / place[0] * np.sqrt(2)
    )  # of two smooth steps, one along each side, in levels a pixel
    assert max(abs(np.diff(made, axis=0)).max(), abs(np.diff(made, axis=1)).max()) <= steepest + 1
    assert made.min() == 100 and made.max() == 140


def test_a_large_face_is_averaged_not_sampled():
    stripes = np.zeros((2048, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    face = faces.align(stripes, placed(1900, 0, (1024, 1024)))[0]
    assert abs(face.astype(int) - 127.5).max() < 45  # sampled, it is 0 or 255


def test_a_small_face_comes_back_without_aliases():
    class Stripes(torch.nn.Module):
        def forward(self, x, **settings):
            x = torch.full_like(x, -1)
            x[..., ::2] = 1
            return (x,)

    place = (100, 0, (400, 300))
    made = restored(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), [placed(*place)], Stripes())
    assert abs(made - 127.5).max() < 45


@pytest.mark.parametrize("place", [PLACES[1], PLACES[4]])
def test_mirrored_in_mirrored_out(place):
    picture, points = (
        smooth(),
        placed(*place) + np.random.default_rng(1).normal(0, place[0] / 100, (5, 2)),
    )
    mirrored = ((WIDTH - 1, 0) + points * (-1, 1))[[1, 0, 2, 4, 3]]
    made = restored(picture, [points], Brighter(30))
    assert (
        abs(
            restored(np.ascontiguousarray(picture[:, ::-1]), [mirrored], Brighter(30))[:, ::-1]
            - made
        ).max()
        <= 4
    )  # the template is 0.5 px askew


def test_the_network_gets_what_it_was_trained_with():
    network, picture = Brighter(), smooth()
    picture[200:400, 300:500] = 0
    picture[200:400, 300:350] = 255
    restored(picture, [placed(300, 0, (400, 300))], network, weight=0.8)
    assert network.seen["shape"] == (1, 3, 512, 512) and network.seen["dtype"] == torch.float32
    assert network.seen["low"] == -1 and network.seen["high"] == 1
    assert network.seen["weight"] == 0.8 and network.seen["randomize_noise"] is False


def test_a_face_comes_in_as_rgb_from_the_picture_before_any_was_restored():
    red = np.full((HEIGHT, WIDTH, 3), (200, 20, 60), np.uint8)
    network = Brighter(10)
    tool = Restorer(network, None, CPU)
    both = [placed(200, 0, (300, 300)), placed(200, 0, (330, 300))]
    made = np.asarray(tool(Image.fromarray(red), Settings(landmarks=both)), int)
    assert tool.used == {"faces": 2, "dtype": "float32"} and tool.scale == 1
    assert tuple(made[300, 315]) == (210, 30, 70)  # not brighter twice where they overlap


def test_no_face_leaves_the_picture():
    tool, image = Restorer(Brighter(50), None, CPU), Image.fromarray(smooth())
    assert (
        tool(image, Settings(landmarks=[])).tobytes() == image.tobytes() and tool.used["faces"] == 0
    )


GOOD = placed(200, 0, (400, 300))
SWAPPED = GOOD[[1, 0, 2, 4, 3]]


@pytest.mark.parametrize(
    ("landmarks", "says"),
    [
        ([GOOD[:4]], "expected five"),
        (GOOD, "Landmarks of face 1, .* expected five"),  # one face, not a list of them
        ([GOOD, GOOD.ravel()], "Landmarks of face 2"),
        ("auto", "landmarks 'auto': expected for each face five"),
        ([[(1, 2), (3,), (4, 5), (6, 7), (8, 9)]], "expected for each face five"),
        ([GOOD * np.nan], "expected five"),
        (
            [GOOD + np.array([400, 0])],
            r"they reach from \[7\d\d.*, expected within the picture's 800 × 600 pixels",
        ),
        ([GOOD - np.array([0, 400])], "within the picture's 800 × 600 pixels"),
        ([GOOD * 0 + 50], r"in one spot, at \(50, 50\)"),
        ([SWAPPED], "do not lie as a face's do"),
    ],
)
def test_landmarks_that_are_none_are_refused(landmarks, says):
    with pytest.raises(rk.RequestError, match=says) as error:
        restored(smooth(), landmarks)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("squeezed", [(0, 1), (0.3, 1), (1, 0.4)])
def test_profiles_and_lowered_faces_are_faces(squeezed):
    points = placed(
        300, 20, (400, 300), (TEMPLATE - TEMPLATE.mean(0)) * squeezed + TEMPLATE.mean(0)
    )
    assert len(faces.checked_landmarks([points.tolist()], (WIDTH, HEIGHT))) == 1


@pytest.mark.parametrize("weight", [-0.1, 1.5, "half", True, float("nan")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(rk.RequestError, match=r"weight .*: Input should be"):
        restored(smooth(), [GOOD], weight=weight)


def test_without_a_detector_and_landmarks_it_says_how_to_give_them():
    with pytest.raises(rk.RequestError, match=r"face_detection_yunet_2023mar.onnx.*landmarks=\[\["):
        Restorer(Brighter(), None, CPU)(Image.fromarray(smooth()), Settings())


def test_yunets_rows_are_read_in_the_templates_order():
    row = np.r_[10, 20, 100, 100, GOOD.ravel(), 0.95].astype(np.float32)[None]
    assert abs(faces.ordered(row)[0] - GOOD).max() < 1e-3 and faces.ordered(
        np.zeros((0, 15))
    ).shape == (0, 5, 2)


def varint(number):
    return b"" + (
        bytes([number]) if number < 128 else bytes([number % 128 + 128]) + varint(number // 128)
    )


def field(number, *values):
    """A protocol buffer's field: one int, or text and bytes under one length."""
    if isinstance(values[0], int):
        return varint(number << 3) + varint(values[0] % 2**64)
    value = b"".join(value.encode() if isinstance(value, str) else value for value in values)
    return varint(number << 3 | 2) + varint(len(value)) + value


AROUND = np.array(
    [-3, -3, 3, -3, 0, 0, -2.5, 3, 2.5, 3], np.float32
)  # landmarks about a cell, in cells


def spot_detector():
    """ONNX weights with YuNet's inputs and outputs, which see a face at each cell of 8 × 8 pixels
    whose left half is red and whose right is black."""
    nodes, tensors, ends = [], [], []

    def node(kind, inputs, output, **settings):
        attributes = [
            field(5, field(1, key), *(field(8, value) for value in values), field(20, 7))
            for key, values in settings.items()
        ]
        nodes.append(
            field(
                1,
                *(field(1, name) for name in inputs),
                field(2, output),
                field(4, kind),
                *attributes,
            )
        )

    def tensor(name, array):
        shape = b"".join(field(1, side) for side in array.shape)
        tensors.append(
            field(
                5,
                shape,
                field(2, 1 if array.dtype == np.float32 else 7),
                field(8, name),
                field(9, array.tobytes()),
            )
        )

    def end(number, name, *shape):
        sides = b"".join(field(1, field(1, side)) for side in shape)
        return field(number, field(1, name), field(2, field(1, field(1, 1), field(2, sides))))

    for name, bias in (
        ("cls", 0),
        ("obj", 0),
        ("bbox", np.array([0.5, 0.5, 2, 2])),
        ("kps", AROUND),
    ):
        for cell in (8, 16, 32):
            channels, sees = np.size(bias), name in ("cls", "obj") and cell == 8
            halves = np.where(np.arange(cell) < cell // 2, 1, -1) * sees / (cell**2 / 2 * 255)
            red = np.array([0, 0, 1]).reshape(3, 1, 1)  # the last, as OpenCV has them
            tensor(
                f"{name}{cell}w",
                np.broadcast_to(red * halves, (channels, 3, cell, cell)).astype(np.float32),
            )
            tensor(f"{name}{cell}b", np.zeros(channels, np.float32) + np.float32(bias))
            tensor(f"{name}{cell}s", np.array([1, -1, channels]))
            node(
                "Conv",
                ["input", f"{name}{cell}w", f"{name}{cell}b"],
                f"{name}{cell}c",
                kernel_shape=[cell, cell],
                strides=[cell, cell],
            )
            node("Transpose", [f"{name}{cell}c"], f"{name}{cell}t", perm=[0, 2, 3, 1])
            node("Reshape", [f"{name}{cell}t", f"{name}{cell}s"], f"{name}_{cell}")
            ends.append(end(12, f"{name}_{cell}", 1, (640 // cell) ** 2, channels))
    graph = field(7, *nodes, field(2, "spots"), *tensors, end(11, "input", 1, 3, 640, 640), *ends)
    return field(1, 6) + graph + field(8, field(1, ""), field(2, 11))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "0a1b2c"  # by its content, whatever its name
    path.write_bytes(spot_detector())
    return path


def spotted(width, height, cell, looked=1280):
    """A black picture with a face for `spot_detector` at the `cell`-th of 8 × 8 where its longer
    side is `looked`; its landmarks; a pixel then."""
    step = 8 * max(1, max(width, height) / looked)
    picture = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = (
        round(place * step) for place in (*cell, cell[0] + 0.5, cell[1] + 1)
    )
    picture[top:bottom, left:right, 0] = 255
    return picture, np.array(cell) * step + AROUND.reshape(5, 2) * step, step / 8


@pytest.mark.parametrize(("width", "height"), [(640, 480), (333, 300), (3000, 2000), (1000, 2560)])
def test_faces_are_found_in_the_pictures_own_pixels(detector, width, height):
    picture, where, pixel = spotted(width, height, (20, 10))
    found = faces.detect(picture, detector)
    assert found.shape == (1, 5, 2) and abs(found[0] - where).max() <= pixel


def test_a_face_too_large_to_be_seen_is_found_in_a_smaller_copy(detector, monkeypatch):
    picture, where, pixel = spotted(1280, 1000, (40, 20), looked=640)
    found = faces.detect(picture, detector)
    assert found.shape == (1, 5, 2) and abs(found[0] - where).max() <= pixel
    monkeypatch.setattr(faces, "LOOKS", (1280,))
    assert faces.detect(picture, detector).shape == (0, 5, 2)


def test_a_face_too_small_to_be_restored_is_left(detector, monkeypatch):
    picture, where, _ = spotted(640, 480, (40, 30))
    monkeypatch.setattr(faces, "EYES", np.hypot(*(where[1] - where[0])) + 1)
    assert faces.detect(picture, detector).shape == (0, 5, 2)


def test_what_is_found_is_restored(detector):
    picture = spotted(640, 480, (40, 30))[0]
    tool = Restorer(Brighter(50), detector, CPU)
    made = np.asarray(tool(Image.fromarray(picture), Settings()))
    assert tool.used["faces"] == 1 and made[260, 330, 0] == 50 and made[10, 10, 0] == 0
    black = Image.new("RGB", (64, 48))
    assert tool(black, Settings()) is black and tool.used["faces"] == 0
    assert (
        tool(black, Settings(landmarks=[placed(40, 0, (32, 24))])) is not black
        and tool.used["faces"] == 1
    )


def test_a_file_that_is_no_detector_is_refused(tmp_path, weights):
    for content in (
        b"",
        b"not a network",
        (weights / "esrgan-x4" / "model.safetensors").read_bytes()[:10_000],
        spot_detector()[:50_000],
    ):
        (tmp_path / "yunet.onnx").write_bytes(content)
        with pytest.raises(
            rk.RequestError,
            match=r"'yunet.onnx' cannot be used: expected face_detection_yunet_2023mar.onnx",
        ) as error:
            faces.detect(smooth(), tmp_path / "yunet.onnx")
        assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_small_gfpgan_restores_the_same_face_the_same_way():
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    network = GFPGAN(num_style_feat=16, channel_multiplier=1, narrow=0.0625, num_mlp=1)
    for name, value in network.named_parameters():
        if name.endswith(".weight") and value.shape == (1,):
            torch.nn.init.ones_(value)  # how much noise is added; none in fresh ones
    once = restored(smooth(), [GOOD], network)
    assert (once == restored(smooth(), [GOOD], network)).all() and (once != smooth()).any()
    assert not (once - smooth())[~square(200, 0, (400, 300))].any()


def test_files_that_are_no_restorer_are_refused(tmp_path, weights):
    import pickle

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"toRGB.0.weight": Evil(tmp_path / "ran")}))
    (tmp_path / "cut.safetensors").write_bytes(
        (weights / "esrgan-x4" / "model.safetensors").read_bytes()[:5000]
    )
    torch.save(
        {
            "params_ema": {
                "toRGB.0.weight": torch.zeros(3),
                "stylegan_decoder.style_mlp.1.weight": torch.zeros(3),
            }
        },
        tmp_path / "part.pth",
    )
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "face.txt").write_text("hello")
    for path, says in (
        (weights / "esrgan-x4" / "model.safetensors", "expected weights of GFPGAN"),
        (tmp_path / "none.pth", "'none.pth' is not there"),
        (tmp_path / "evil.pth", "'evil.pth' does not load"),
        (tmp_path / "cut.safetensors", "'cut.safetensors' does not load"),
        (tmp_path / "part.pth", "'part.pth' does not load"),
        (tmp_path / "list.pth", "'list.pth' does not load"),
        (tmp_path / "face.txt", "'face.txt' does not load"),
    ):
        with pytest.raises(rk.RequestError, match=says) as error:
            faces.load_restorer(path, None, CPU)
        assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(rk.RequestError, match=r"detector 'yunet.onnx' is not there"):
        faces.load_restorer(
            weights / "esrgan-x4" / "model.safetensors", tmp_path / "yunet.onnx", CPU
        )


class Evil:
    """What touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_codeformer_says_which_package_it_needs(tmp_path, monkeypatch):
    import sys

    from safetensors.torch import save_file

    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)  # as where it is not installed
    save_file(
        {name: torch.zeros(1) for name in ("idx_pred_layer.1.weight", "quantize.embedding.weight")},
        tmp_path / "codeformer.safetensors",
    )
    with pytest.raises(
        rk.RequestError,
        match=r"'codeformer.safetensors' is a CodeFormer.*: pip install spandrel_extra_arches$",
    ):
        faces.load_restorer(tmp_path / "codeformer.safetensors", None, CPU)


@pytest.mark.slow
def test_gfpgan_loads_at_its_own_size(tmp_path):
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    network = GFPGAN()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "GFPGANv1.4.pth")
    tool, image = (
        faces.load_restorer(tmp_path / "GFPGANv1.4.pth", None, CPU),
        Image.fromarray(smooth()),
    )
    made = np.asarray(tool(image, Settings(landmarks=[GOOD])), int)
    face = faces.align(smooth(), GOOD)[0]
    with torch.inference_mode():
        y = network.eval()(
            torch.from_numpy(face).permute(2, 0, 1)[None] / 127.5 - 1, randomize_noise=False
        )[0][0]
    levels = ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert (made == faces.blend(smooth(), levels, faces.fit(GOOD)[0])).all()
    assert (made != smooth()).any() and not (made - smooth())[~square(200, 0, (400, 300))].any()


@pytest.mark.slow
def test_codeformer_loads_and_heeds_its_weight(tmp_path):
    codeformer = pytest.importorskip("spandrel_extra_arches.architectures.CodeFormer")
    torch.manual_seed(0)
    network = codeformer.CodeFormer()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "codeformer.pth")
    tool = faces.load_restorer(tmp_path / "codeformer.pth", None, CPU)
    made = [
        np.asarray(tool(Image.fromarray(smooth()), Settings(landmarks=[GOOD], **settings)))
        for settings in ({"weight": 0}, {"weight": 1}, {}, {"weight": 0.5})
    ]
    assert (made[0] != made[1]).any() and (made[1] != made[2]).any() and (made[2] == made[3]).all()
