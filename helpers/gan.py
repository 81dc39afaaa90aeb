"""What several adversarial trainings share: penalty, gradient norm, moving average, toy mixtures, a score of modes.

The two players' steps stand in the notebooks, as the lesson. Spectral norm is torch's (`nn.utils.parametrizations`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from torch import nn
from torch.optim.swa_utils import AveragedModel

from helpers.plots import image_grid


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Mean of (|∇f(x̂)|₂ − 1)², x̂ = u real + (1 − u) fake, one u ~ U[0, 1] a row (Gulrajani et al. 2017, eq. 3).

    `real` and `fake` have shape [B, ...], the critic returns [B] or [B, 1] and must treat rows one by one (no batch
    norm). The result is a scalar, differentiable in the critic's parameters; `fake` and `real` get no gradient.
    `generator` lives on the CPU. Raises ValueError for unequal shapes or another number of values than rows.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real is {tuple(real.shape)}, fake {tuple(fake.shape)}; wanted equal shapes [B, ...]")
    u = torch.rand(len(real), *[1] * (real.ndim - 1), generator=generator, dtype=real.dtype).to(real.device)
    between = (u * real + (1 - u) * fake).detach().requires_grad_()
    values = critic(between)
    if values.numel() != len(real):
        raise ValueError(f"the critic returned {tuple(values.shape)} for {len(real)} rows; wanted one value a row")
    (slope,) = torch.autograd.grad(values.sum(), between, create_graph=True)
    # vector_norm, for the derivative of a written-out square root is not finite at slope 0
    return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


def gradient_norm(parameters: Iterable[torch.Tensor]) -> float:
    """Euclidean norm of all gradients that lie in `.grad`; raises ValueError where there is none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        raise ValueError("no parameter has a gradient; wanted a call after backward() and before zero_grad()")
    return torch.nn.utils.get_total_norm(gradients).item()


class EMA(AveragedModel):
    """Moving average θ̄ ← d θ̄ + (1 − d) θ of a generator's weights (Yazıcı et al. 2019).

    d = min(decay, (1 + n)/(10 + n)) at the n-th update (n = 1, 2, …; the first, n = 0, copies), so that a short
    training forgets its start. Buffers are copied. Call `update_parameters(model)` after each step of the generator,
    and the average itself as a model (evaluation mode). `state_dict` holds weights, buffers and n: enough to resume.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; wanted 0 ≤ decay < 1")

        def average(means: list[torch.Tensor], current: list[torch.Tensor], n: torch.Tensor) -> None:
            d = min(decay, (1 + int(n)) / (10 + int(n)))
            torch._foreach_lerp_(means, current, 1 - d)

        super().__init__(model, multi_avg_fn=average)
        self.eval().requires_grad_(False)


def ring(n: int = 8, radius: float = 2.0) -> torch.Tensor:
    """`n` centres on a circle (Metz et al. 2017, section 3.1: n = 8, radius 2, σ = 0.02): [n, 2]."""
    angle = 2 * torch.pi * torch.arange(n) / n
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def grid(n: int = 5, spacing: float = 2.0) -> torch.Tensor:
    """`n²` centres on a square grid about 0 (Lin et al. 2018, section 4.1: n = 5, spacing 2, σ = 0.05): [n², 2]."""
    line = spacing * (torch.arange(n) - (n - 1) / 2)
    return torch.cartesian_prod(line, line)


def mixture_sample(centres: torch.Tensor, sigma: float, n: int, generator: torch.Generator | None) -> torch.Tensor:
    """`n` draws [n, d] of the mixture with equal weights and components N(centre, σ²I); centres [K, d]."""
    mode = torch.randint(len(centres), (n,), generator=generator)
    return centres[mode] + sigma * torch.randn(n, centres.shape[1], generator=generator)


@dataclass(frozen=True)
class Modes:
    """High-quality samples of each mode, out of `samples`; a mode with `at_least` of them is covered."""

    counts: tuple[int, ...]
    samples: int
    at_least: int = 1

    @property
    def covered(self) -> int:
        """Number of modes covered."""
        return sum(count >= self.at_least for count in self.counts)

    @property
    def quality(self) -> float:
        """Share of the samples that are of high quality."""
        return sum(self.counts) / self.samples

    @property
    def name(self) -> str:
        """What happened: off the modes (not one sample in ten is good), collapse (at most half of the modes covered),
        modes lost, or all modes. The two limits are ours."""
        if not self.quality >= 0.1:
            return "off the modes"
        if 2 * self.covered <= len(self.counts):
            return "collapse"
        return "all modes" if self.covered == len(self.counts) else "modes lost"


def mode_statistics(samples: torch.Tensor, centres: torch.Tensor, radius: float, at_least: int = 1) -> Modes:
    """Modes of samples [N, d]: a sample is good within `radius` of its nearest centre [K, d] (often 3σ).

    A mode is covered by `at_least` good samples: 1 in Srivastava et al. 2017 (section 4.1) and Lin et al. 2018
    (section 4.1). A sample that is not finite is not good. For classes that a classifier names, build `Modes` from
    the counts. Raises ValueError for no samples or other widths.
    """
    if samples.ndim != 2 or len(samples) == 0 or samples.shape[1:] != centres.shape[1:]:
        raise ValueError(f"samples are {tuple(samples.shape)}, centres {tuple(centres.shape)}; wanted [N, d], [K, d]")
    distance, nearest = torch.cdist(samples, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = nearest[distance <= radius]
    return Modes(tuple(torch.bincount(good, minlength=len(centres)).tolist()), len(samples), at_least)


@torch.no_grad()
def frame(generator: nn.Module, *fixed: torch.Tensor) -> torch.Tensor:
    """One frame of a training film: the generator at its fixed noise (and labels), in evaluation mode, on the CPU."""
    training = generator.training
    images = generator.eval()(*fixed).cpu()
    generator.train(training)
    return images


def film_strip(frames: Mapping[int, torch.Tensor], ax: Axes | None = None) -> Axes:
    """Rows of images from the same noise, one row [K, C, H, W] in [0, 1] for each training step, in order of steps.

    Raises ValueError for no frames or for frames of other shapes.
    """
    shapes = {tuple(images.shape) for images in frames.values()}
    if len(shapes) != 1:
        raise ValueError(f"{len(frames)} frames of shapes {sorted(shapes)}; wanted one shape [K, C, H, W]")
    steps = sorted(frames)
    rows = torch.cat([frames[step] for step in steps])
    return image_grid(rows, columns=len(rows) // len(steps), titles=[f"step {step:,}" for step in steps], ax=ax)
