"""Stand-ins: digits that ship with scikit-learn, and pictures drawn by code, the same on every machine."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

COUNT = {"train": 4000, "test": 1000}
SEED = {"train": 0, "test": 1}
# uniform and independent; in this order the columns of a drawn face's factors
FACTORS = ("smile", "background", "skin", "eyes", "shift", "tilt")
FACE_SIZE = 128


def digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scikit-learn's 1,797 digits (8 × 8) scaled to 28 × 28; uint8 [N, 1, 28, 28] and labels.

    In a fixed shuffle, every fifth of each class is the test split: 1,433 to train, 364 to test.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    shuffle = np.random.RandomState(0)  # numpy promises that this one never changes
    order = [shuffle.permutation(np.flatnonzero(source.target == digit)) for digit in range(10)]
    parts = [rows[::5] if split == "test" else np.delete(rows, np.s_[::5]) for rows in order]
    index = torch.from_numpy(np.sort(np.concatenate(parts)))
    images = torch.from_numpy(source.images).float()[index, None] / 16
    # as wide as MNIST's digits lie in their frame
    images = F.pad(F.interpolate(images, size=(22, 22), mode="bicubic", align_corners=False), (3, 3, 3, 3))
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), torch.from_numpy(source.target)[index].long()


def faces(split: str, size: int = FACE_SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drawn faces: uint8 [N, 3, size, size], labels (1: smile), and their `random_factors` [N, K]."""
    factors = random_factors(COUNT[split], torch.Generator().manual_seed(SEED[split]))
    # a few at a time stay in the processor's cache
    images = torch.cat([draw_faces(part, size) for part in factors.split(max(1, 2**17 // size**2))])
    return images, (factors[:, 0] > 0).long(), factors


def random_factors(n: int, generator: torch.Generator) -> torch.Tensor:
    """Factors [n, K] in [−1, 1], columns as in FACTORS: independent and uniform, but that |smile| starts at 0.25.

    Less is neither smile nor frown.
    """
    factors = torch.rand(n, len(FACTORS), generator=generator) * 2 - 1
    factors[:, 0] = factors[:, 0].sign() * (0.25 + 0.75 * factors[:, 0].abs())
    return factors


def draw_faces(factors: torch.Tensor, size: int) -> torch.Tensor:
    """The faces of given factors [N, K] in [−1, 1], in the order of FACTORS: uint8 [N, 3, size, size]."""
    smile, hue, complexion, eyes, shift, tilt = (f.view(-1, 1, 1) for f in factors.T)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    x = x - 0.2 * shift
    angle = 0.3 * tilt
    x, y = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x

    def inside(distance: torch.Tensor) -> torch.Tensor:
        return (0.5 - distance * (size / 3)).clamp_(0, 1)[:, None]  # [n, 1, H, W]; an edge is 1.5 pixels wide

    def ellipse(
        cx: float, cy: float, rx: torch.Tensor | float, ry: torch.Tensor | float, x: torch.Tensor = x
    ) -> torch.Tensor:
        radius = ((x - cx) / rx).square() + ((y - cy) / ry).square()
        return inside((radius.sqrt() - 1) * torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry)))

    def colour(r: float, g: float, b: float) -> torch.Tensor:
        return torch.tensor([r, g, b], dtype=torch.float32).view(1, 3, 1, 1)

    # hue runs over less than the whole circle, so that no two values look alike
    sheet = 0.5 + 0.3 * torch.cos(0.8 * math.pi * hue[:, None] + colour(4.2, 2.1, 0)) + torch.zeros(1, 1, size, size)
    skin = torch.lerp(colour(0.5, 0.33, 0.22), colour(0.97, 0.82, 0.7), (1 + complexion[:, None]) / 2)
    for mask, paint in (
        (ellipse(0, -0.1, 0.64, 0.76), colour(0.16, 0.1, 0.07)),  # hair
        (ellipse(0, 0.05, 0.54, 0.68), skin),
    ):
        sheet.lerp_(paint, mask)
    wide = 0.115 + 0.045 * eyes
    for rx, ry, paint in ((wide * 1.25, wide, colour(1, 1, 1)), (wide * 0.6, wide * 0.7, colour(0.08, 0.08, 0.12))):
        sheet.lerp_(paint, ellipse(0.22, -0.08, rx, ry, x.abs()))  # both eyes at once
    sheet.mul_(1 - 0.25 * ellipse(0, 0.16, 0.045, 0.1))  # nose
    # the mouth's middle line is a parabola: corners up where smile > 0
    line = 0.41 + 0.12 * smile * (0.8 - 1.6 * (x / 0.3).square())
    mouth = inside((y - line).abs() - 0.05 - 0.02 * smile.abs()) * inside(x.abs() - 0.3)
    sheet.lerp_(colour(0.62, 0.06, 0.12), mouth)
    return sheet.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def scenes(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn 32 × 32 pictures, as many of each of CIFAR-10's ten classes: uint8 [N, 3, 32, 32] and labels.

    A class is a shape in its usual surroundings; place, scale, colours, light and noise vary.
    """
    n, g = COUNT[split], torch.Generator().manual_seed(SEED[split] + 10)
    labels = torch.arange(n) % 10
    u = torch.rand(n, 12, generator=g)
    images = torch.empty(n, 3, 32, 32)
    for k, shapes in enumerate(_SCENES):
        images[labels == k] = _draw_scene(u[labels == k], *shapes)
    images += 0.03 * torch.randn(images.shape, generator=g)
    order = torch.randperm(n, generator=g)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)[order], labels[order]


Part = tuple[str, float, float, float, float, int]  # shape, centre x, y, half width, half height, colour index
_SKY, _SEA, _ROAD, _GRASS, _ROOM = (
    (0.55, 0.75, 0.95),
    (0.1, 0.35, 0.6),
    (0.45, 0.45, 0.47),
    (0.3, 0.55, 0.2),
    (0.7, 0.62, 0.5),
)
_SCENES: tuple[tuple[tuple, tuple, list[Part]], ...] = (
    (_SKY, _SKY, [("oval", 0, 0, 0.75, 0.13, 0), ("box", 0.05, 0, 0.12, 0.6, 0), ("box", -0.62, -0.15, 0.08, 0.2, 1)]),
    (
        _SKY,
        _ROAD,
        [
            ("box", 0, 0.2, 0.7, 0.2, 0),
            ("oval", 0, 0.02, 0.4, 0.28, 0),
            ("oval", -0.4, 0.4, 0.17, 0.17, 2),
            ("oval", 0.4, 0.4, 0.17, 0.17, 2),
        ],
    ),
    (
        _SKY,
        _GRASS,
        [
            ("oval", 0, 0.1, 0.4, 0.25, 0),
            ("oval", 0.38, -0.2, 0.17, 0.17, 0),
            ("wedge", 0.66, -0.2, 0.13, 0.09, 3),
            ("wedge", -0.5, 0.1, 0.3, 0.2, 1),
            ("box", 0.05, 0.45, 0.04, 0.15, 3),
        ],
    ),
    (
        _ROOM,
        _ROOM,
        [
            ("oval", 0, 0.15, 0.5, 0.45, 0),
            ("peak", -0.32, -0.42, 0.17, 0.27, 0),
            ("peak", 0.32, -0.42, 0.17, 0.27, 0),
            ("oval", -0.2, 0.05, 0.1, 0.07, 4),
            ("oval", 0.2, 0.05, 0.1, 0.07, 4),
            ("oval", 0, 0.3, 0.07, 0.05, 2),
        ],
    ),
    (
        _GRASS,
        _GRASS,
        [
            ("oval", -0.1, 0.1, 0.5, 0.2, 5),
            ("box", -0.45, 0.5, 0.05, 0.3, 5),
            ("box", 0.25, 0.5, 0.05, 0.3, 5),
            ("box", 0.4, -0.15, 0.07, 0.3, 5),
            ("oval", 0.5, -0.4, 0.17, 0.1, 5),
            ("box", 0.42, -0.7, 0.03, 0.2, 2),
            ("box", 0.6, -0.7, 0.03, 0.2, 2),
        ],
    ),
    (
        _ROOM,
        _GRASS,
        [
            ("oval", 0, 0.05, 0.48, 0.5, 0),
            ("oval", -0.5, 0, 0.16, 0.4, 5),
            ("oval", 0.5, 0, 0.16, 0.4, 5),
            ("oval", -0.18, -0.1, 0.08, 0.08, 2),
            ("oval", 0.18, -0.1, 0.08, 0.08, 2),
            ("oval", 0, 0.22, 0.22, 0.17, 1),
            ("oval", 0, 0.15, 0.1, 0.07, 2),
        ],
    ),
    (
        _GRASS,
        _SEA,
        [
            ("oval", 0, 0.25, 0.65, 0.4, 6),
            ("oval", -0.3, -0.2, 0.19, 0.19, 6),
            ("oval", 0.3, -0.2, 0.19, 0.19, 6),
            ("oval", -0.3, -0.22, 0.09, 0.09, 2),
            ("oval", 0.3, -0.22, 0.09, 0.09, 2),
            ("box", 0, 0.3, 0.4, 0.03, 2),
        ],
    ),
    (
        _SKY,
        _GRASS,
        [
            ("oval", -0.1, 0.05, 0.55, 0.25, 5),
            ("box", -0.5, 0.5, 0.07, 0.35, 5),
            ("box", 0.3, 0.5, 0.07, 0.35, 5),
            ("box", 0.45, -0.3, 0.13, 0.4, 5),
            ("oval", 0.62, -0.55, 0.27, 0.13, 5),
            ("box", 0.3, -0.4, 0.06, 0.35, 2),
            ("wedge", -0.75, 0.25, 0.12, 0.3, 2),
        ],
    ),
    (
        _SKY,
        _SEA,
        [
            ("hull", 0, 0.25, 0.8, 0.25, 0),
            ("box", -0.05, -0.08, 0.45, 0.12, 7),
            ("box", 0.1, -0.4, 0.11, 0.22, 3),
            ("box", 0.1, -0.56, 0.11, 0.06, 2),
        ],
    ),
    (
        _SKY,
        _ROAD,
        [
            ("box", -0.2, -0.05, 0.55, 0.42, 0),
            ("box", 0.55, 0.12, 0.22, 0.27, 1),
            ("box", 0.6, 0, 0.12, 0.1, 4),
            ("oval", -0.5, 0.45, 0.15, 0.15, 2),
            ("oval", 0.5, 0.45, 0.15, 0.15, 2),
        ],
    ),
)


def _draw_scene(u: torch.Tensor, above: tuple, below: tuple, parts: list[Part]) -> torch.Tensor:
    """Pictures [n, 3, 32, 32] of one class; u [n, 12] uniform: place, scale, light and colours of each."""
    v, h = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    n, unit = len(u), u[:, :, None, None]
    horizon = torch.sigmoid((v - 0.2 + 0.3 * (unit[:, 0] - 0.5)) * 12)[:, None]
    top, bottom = (torch.tensor(c).view(1, 3, 1, 1) for c in (above, below))
    sheet = top * (1 - horizon) + bottom * horizon + 0.12 * (unit[:, 1, None] - 0.5) * v
    scale = 0.75 + 0.3 * unit[:, 2]
    flip = torch.where(unit[:, 3] < 0.5, -1.0, 1.0)
    x, y = flip * (h - 0.3 * (unit[:, 4] - 0.5)) / scale, (v - 0.2 * (unit[:, 5] - 0.5)) / scale
    free = u[:, 6:9]  # paint of man-made things and fur
    warm = torch.stack([0.45 + 0.35 * u[:, 9], 0.3 + 0.22 * u[:, 9], 0.15 + 0.12 * u[:, 9]], 1)
    dark, orange = torch.tensor([[0.08, 0.07, 0.08]]), torch.tensor([[0.95, 0.55, 0.1]])
    eye, green = (
        torch.tensor([[0.85, 0.95, 0.6]]),
        torch.stack([0.25 + 0.2 * u[:, 9], 0.65 + 0.2 * u[:, 10], 0 * u[:, 0] + 0.15], 1),
    )
    white = torch.tensor([[0.95, 0.95, 0.93]])
    paints = [free, 0.5 + 0.5 * free, dark, orange, eye, warm, green, white]
    for shape, cx, cy, rx, ry, paint in parts:
        mask = torch.sigmoid(-_SHAPES[shape]((x - cx) / rx, (y - cy) / ry) * min(rx, ry) * 48)[:, None]
        sheet = sheet * (1 - mask) + paints[paint].expand(n, 3)[:, :, None, None] * mask
    return sheet * (0.8 + 0.35 * unit[:, 11, None])


# below zero inside, about the distance to the edge in units of the half width
_SHAPES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "oval": lambda x, y: (x.square() + y.square() + 1e-6).sqrt() - 1,
    "box": lambda x, y: torch.maximum(x.abs(), y.abs()) - 1,
    "hull": lambda x, y: torch.maximum(x.abs() + (y + 1) / 5 - 1, y.abs() - 1),
    "peak": lambda x, y: torch.maximum(x.abs() - (y + 1) / 2, y - 1),
    "wedge": lambda x, y: torch.maximum(y.abs() - (1 - x) / 2, -x - 1),
}
