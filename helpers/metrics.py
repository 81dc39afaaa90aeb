"""What models are measured with: a digit classifier, distances in its features, pixel scores.

Functions take float images [N, C, H, W] in [0, 1] or features [N, d] and return plain numbers.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from helpers import checkpoints


class DigitClassifier(nn.Module):
    """Convolutional classifier of 28 × 28 digits; `features(x)` are its 128 penultimate activations."""

    def __init__(self) -> None:
        super().__init__()

        def block(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]

        self.trunk = nn.Sequential(
            *block(1, 16, 1),  # 28
            *block(16, 32, 2),  # 14
            *block(32, 32, 1),
            *block(32, 64, 2),  # 7
            *block(64, 64, 1),
            *block(64, 64, 2),  # 4
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.ReLU(),
        )
        self.head = nn.Linear(128, 10)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images [N, 1, 28, 28] in [0, 1] → features [N, 128]."""
        return self.trunk(x * 2 - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [N, 1, 28, 28] in [0, 1] → logits [N, 10]."""
        return self.head(self.features(x))


def digit_classifier() -> DigitClassifier:
    """The shipped classifier, in evaluation mode; its accuracy stands in the manifest."""
    model = DigitClassifier()
    checkpoints.load("digit_classifier", model)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def in_batches(function: nn.Module, images: torch.Tensor, size: int = 500) -> torch.Tensor:
    """`function` over images, uint8 or float in [0, 1], a batch at a time, so that memory stays small."""
    scale = 255 if images.dtype == torch.uint8 else 1
    return torch.cat([function(part.float() / scale) for part in images.split(size)])


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Share of correct classes and its standard error; logits [N, K], labels [N]."""
    p = (logits.argmax(1) == labels).double().mean().item()
    return p, (p * (1 - p) / len(labels)) ** 0.5


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|m_a − m_b|² + tr(C_a + C_b − 2 (C_a C_b)^½) of two feature sets [N, d] (Heusel et al. 2017, eq. 6).

    Raises ValueError for sets of other widths or with fewer than two rows.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"feature sets are {tuple(a.shape)} and {tuple(b.shape)}; wanted [N, d] and [M, d], N, M ≥ 2")
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # C_a C_b and root C_b root have the same eigenvalues; the second is symmetric
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    return (mean + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def precision_recall(real: torch.Tensor, fake: torch.Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall of feature sets [N, d] (Kynkäänniemi et al. 2019, eq. 1–3).

    Precision: share of fakes within the distance of some real point to its k-th neighbour; recall: the reverse.
    Raises ValueError where a set has k points or fewer.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"sets of {len(real)} and {len(fake)} points; wanted more than k = {k} in each")
    return _covered(fake, real, k), _covered(real, fake, k)


def density_coverage(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of feature sets [N, d] (Naeem et al. 2020, eq. 3 and 4).

    Density: in how many of the balls that reach from a real point to its k-th neighbour a fake lies, over k; its mean
    is 1 for equal distributions and has no upper limit. Coverage: share of these balls that hold a fake. Unlike
    recall, neither lets one outlier among the fakes cover a wide region. Raises ValueError for k real points or fewer.
    """
    if len(real) <= k:
        raise ValueError(f"{len(real)} real points; wanted more than k = {k}")
    held, hit = 0.0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    radius = _radius(real, k)
    for block in fake.split(1000):
        inside = torch.cdist(block, real) <= radius
        held, hit = held + inside.sum().item(), hit | inside.any(0)
    return held / (k * len(fake)), hit.double().mean().item()


def _radius(support: torch.Tensor, k: int) -> torch.Tensor:
    """Distance of each point [N, d] to its k-th neighbour: [N]. cdist's rounding makes self-distances about 1e-3."""
    return torch.cat([torch.cdist(block, support).kthvalue(k + 1).values for block in support.split(1000)])


def _covered(points: torch.Tensor, support: torch.Tensor, k: int) -> float:
    """Share of points inside the union of balls around the support points, radius to their k-th neighbour."""
    radius = _radius(support, k)
    inside = [(torch.cdist(block, support) <= radius).any(1) for block in points.split(1000)]
    return torch.cat(inside).double().mean().item()


def psnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each image, range [0, 1]: −10 log10 of the mean squared error; [N]."""
    return -10 * (x - y).square().flatten(1).mean(1).log10()


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, range [0, 1] (Wang et al. 2004, eq. 13; Gaussian window of σ = 1.5); [N]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    pairs = zip(x.split(1000), y.split(1000), strict=True)
    return torch.cat(
        [structural_similarity_index_measure(a, b, data_range=1.0, reduction="none").reshape(-1) for a, b in pairs]
    )


def sharpness(x: torch.Tensor) -> torch.Tensor:
    """Variance of the Laplacian of each image's grey values (Pech-Pacheco et al. 2000): [N]. Blur lowers it.

    The Laplacian is the five-point stencil, at inner pixels only. Raises ValueError for images smaller than 3 × 3.
    """
    if min(x.shape[-2:]) < 3:
        raise ValueError(f"images are {tuple(x.shape[-2:])}; wanted at least 3 × 3")
    x = x.mean(1)
    inner = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return (around - 4 * inner).flatten(1).var(1)


@torch.no_grad()
def importance_weighted_bound(
    log_weights: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, samples: int, chunk: int = 50
) -> torch.Tensor:
    """log (1/K) Σ_k p(x, z_k) / q(z_k|x) of each image with K = `samples` (Burda et al. 2016, eq. 8): [N], in nats.

    `log_weights(x, k)` draws k codes for each image and returns log p(x, z) − log q(z|x), [k, N]. On average a lower
    bound on log p(x), the ELBO at K = 1, and it rises with K. Raises ValueError for fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; wanted at least 1")
    parts = [log_weights(x, min(chunk, samples - start)).logsumexp(0) for start in range(0, samples, chunk)]
    total = torch.stack(parts).logsumexp(0)
    return total - math.log(samples)


def bootstrap_error(
    statistic: Callable[..., float], *sets: torch.Tensor, repeats: int = 50, generator: torch.Generator | None = None
) -> float:
    """Standard error of `statistic(*sets)`: its standard deviation over sets resampled by rows (Efron 1979).

    Raises ValueError for fewer than two repeats.
    """
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}; wanted at least 2")
    values = []
    for _ in range(repeats):
        drawn = [s[torch.randint(len(s), (len(s),), generator=generator).to(s.device)] for s in sets]
        values.append(statistic(*drawn))
    return torch.tensor(values, dtype=torch.float64).std().item()
