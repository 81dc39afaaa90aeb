"""Disentanglement on drawn faces: a small VAE, the mutual information gap, the FactorVAE score, traversals.

What β-VAE and FactorVAE share; their objectives stand in the notebooks. Everything is in nats and on the CPU.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helpers.drawn import FACTORS, draw_faces, random_factors
from helpers.metrics import psnr
from helpers.settings import Settings

SIDE = 32  # pixels of a face
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


class FaceVAE(nn.Module):
    """q(z|x) = N(mu, diag exp(log_var)) and the mean of p(x|z), for images [B, 3, 32, 32] in [0, 1].

    Three strided convolutions and two linear layers each way. `mean` [3, 32, 32], the mean training image, is where
    the decoder starts: that saves half of the training.
    """

    def __init__(self, d: int = 10, mean: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3, SIDE, SIDE), 0.5) if mean is None else mean)
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU()),
            *(nn.Conv2d(32, 32, 4, 2, 1), nn.SiLU(), nn.Flatten()),  # 32 channels of 4 × 4
            *(nn.Linear(512, 128), nn.SiLU(), nn.Linear(128, 2 * d)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(d, 128), nn.SiLU(), nn.Linear(128, 512), nn.SiLU(), nn.Unflatten(1, (32, 4, 4))),
            *(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU()),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, 32, 32] → mu, log_var [B, d] each."""
        mu, log_var = self.encoder(4 * (x - self.mean)).chunk(2, 1)  # pixels of about unit scale
        return mu, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Codes [B, d] → mean images [B, 3, 32, 32]; not confined to [0, 1], for the likelihood is Gaussian."""
        return self.mean + self.decoder(z) / 4


def mutual_information(
    mu: Tensor, log_var: Tensor, factors: Tensor, generator: torch.Generator, bins: int = 10
) -> Tensor:
    """I(z_j; v_k) between codes and factors cut into `bins` classes of equal size, in nats: [d, K], at most log bins.

    Chen et al. 2018, appendix C: H(z_j) − H(z_j | v_k), where q(z_j) and q(z_j | v_k) are the means of the given
    posteriors N(mu, exp(log_var)) [N, d] over all images, and over those of the class. One draw of z per image.
    Independent codes give a number of the order of bins / N; but posteriors so narrow that few others overlap them
    inflate the information about every factor. Raises ValueError where N is not a multiple of `bins`.
    """
    n = len(mu)
    if n % bins:
        raise ValueError(f"{n} images do not fill {bins} classes evenly; take {n - n % bins} of them")
    classes = factors.argsort(0).unflatten(0, (bins, n // bins))  # [bins, N / bins, K]: which images each class holds
    z = mu + (0.5 * log_var).exp() * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)
    rows = []
    for m, v, value in zip(mu.T, log_var.T, z.T, strict=True):
        log_q = -0.5 * ((value[:, None] - m).square() / v.exp() + v + math.log(2 * math.pi))  # [N draws, N posteriors]
        entropy = math.log(n) - log_q.logsumexp(1).mean()
        within = [log_q[c[:, :, None], c[:, None, :]] for c in classes.unbind(2)]  # [bins, N / bins, N / bins] each
        conditional = [math.log(n // bins) - block.logsumexp(2).mean() for block in within]
        rows.append(entropy - torch.stack(conditional))
    return torch.stack(rows)


def mutual_information_gap(information: Tensor, bins: int = 10) -> Tensor:
    """MIG of each factor, [K]: its largest I(z_j; v_k) less the second largest, over H(v_k) = log bins.

    Chen et al. 2018, eq. 6; the score of a model is the mean over the factors. 1: one dimension knows the factor
    exactly and no other knows it; 0: two dimensions know it equally well, or none does.
    """
    first, second = information.topk(2, dim=0).values
    return (first - second) / math.log(bins)


def factor_vae_score(
    encode: Encode, generator: torch.Generator, votes: int = 600, faces: int = 64, dead: float = 0.05
) -> float:
    """Accuracy with which the steadiest dimension names the fixed factor (Kim & Mnih 2018, section 4); chance: 1/6.

    Each vote draws `faces` faces that share one factor; the dimension of mu whose variance, relative to that over all
    votes, is smallest votes for that factor. A majority classifier fitted on half of the votes is judged on the other.
    Dimensions of variance below `dead` do not vote; where all are dead the score is chance.
    """
    K = len(FACTORS)
    fixed = torch.arange(votes) % K
    fixed = fixed[torch.randperm(votes, generator=generator)]
    factors = random_factors(votes * faces, generator).view(votes, faces, K)
    rows = torch.arange(votes)
    factors[rows, :, fixed] = factors[rows, :1, fixed]
    with torch.no_grad():
        flat = factors.view(-1, K)
        mu = torch.cat([encode(draw_faces(part, SIDE).float() / 255)[0] for part in flat.split(2048)])
    spread = mu.var(0)
    if not (spread > dead).any():
        return 1 / K
    relative = mu.view(votes, faces, -1).var(1) / spread
    steadiest = relative.where(spread > dead, math.inf).argmin(1)
    table = torch.zeros(mu.shape[1], K)
    half = votes // 2
    table.index_put_((steadiest[:half], fixed[:half]), torch.ones(half), accumulate=True)
    return (table.argmax(1)[steadiest[half:]] == fixed[half:]).float().mean().item()


@torch.no_grad()
def reconstruction_psnr(model: FaceVAE, images: Tensor) -> Tensor:
    """PSNR in dB of each image [N, 3, 32, 32] in [0, 1] against the decoder's mean at the mean of its code: [N]."""
    return psnr(images, model.decode(model.encode(images)[0]).clamp(0, 1))


@torch.no_grad()
def scores(model: FaceVAE, images: Tensor, run: Settings, faces: int, votes: int) -> dict[str, object]:
    """What is reported of a model: reconstruction of `images` [N, 3, 32, 32], and scores on `faces` fresh faces.

    "rates" (KL to the prior of each dimension, nats), "PSNR" (dB, mean code decoded), "information" [d, K], "gaps"
    (MIG of each factor), "MIG" (their mean), "FactorVAE score". The same run gives the same numbers.
    """
    mu, log_var = model.encode(images)
    factors = random_factors(faces, run.generator(1))
    information = mutual_information(*model.encode(draw_faces(factors, SIDE).float() / 255), factors, run.generator(2))
    gaps = mutual_information_gap(information)
    return {
        "rates": (0.5 * (mu.square() + log_var.exp() - 1 - log_var)).mean(0).tolist(),
        "PSNR": reconstruction_psnr(model, images).mean().item(),
        "information": [[round(i, 4) for i in row] for row in information.tolist()],
        "gaps": gaps.tolist(),
        "MIG": gaps.mean().item(),
        "FactorVAE score": factor_vae_score(model.encode, run.generator(3), votes),
    }


def traverse(decode: Callable[[Tensor], Tensor], z: Tensor, dimensions: Sequence[int], values: Tensor) -> Tensor:
    """Decode the code z [d] with one dimension at a time set to each value: [dimensions · values, 3, H, W]."""
    codes = z.repeat(len(dimensions), len(values), 1)
    for row, j in enumerate(dimensions):
        codes[row, :, j] = values
    with torch.no_grad():
        return decode(codes.flatten(0, 1))


def in_use(rates: Sequence[float], floor: float = 0.1) -> list[int]:
    """Dimensions whose KL to the prior is above `floor` nats, largest first."""
    return sorted((j for j, rate in enumerate(rates) if rate > floor), key=lambda j: -rates[j])


def names(information: Tensor, dimensions: Sequence[int]) -> list[str]:
    """For each dimension the two factors about which it knows most, with that information in nats: row labels."""
    rows = []
    for j in dimensions:
        known, order = information[j].topk(2)
        factors = [f"{FACTORS[k]} {i:.2f}" for i, k in zip(known, order, strict=True)]
        rows.append(f"$z_{{{j}}}$: {', '.join(factors)}")
    return rows
