"""Laws of the distances, and the shipped classifier's accuracy, measured again."""

import math

import pytest
import torch

from helpers import checkpoints, data
from helpers.metrics import (
    accuracy,
    bootstrap_error,
    density_coverage,
    digit_classifier,
    frechet_distance,
    importance_weighted_bound,
    in_batches,
    precision_recall,
    psnr,
    sharpness,
    ssim,
)


def cloud(n=400, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_is_zero_on_itself_symmetric_and_invariant_under_rotation():
    a, b = cloud(), 1.5 * cloud(seed=1) + 0.3
    assert abs(frechet_distance(a, a)) < 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    q, _ = torch.linalg.qr(cloud(5, 5, 2))
    assert frechet_distance(a @ q + 7, b @ q + 7) == pytest.approx(frechet_distance(a, b))


def test_frechet_has_its_closed_form_on_scaled_and_shifted_copies():
    a = cloud()
    cov = torch.cov(a.T)
    for scale, shift in ((2.0, 0.0), (1.0, 3.0), (0.5, -1.0)):
        mean = (a.mean(0) * (scale - 1) + shift).square().sum()
        assert frechet_distance(a, scale * a + shift) == pytest.approx((mean + (scale - 1) ** 2 * cov.trace()).item())


def test_frechet_against_scipys_matrix_root():
    from scipy.linalg import sqrtm

    a, b = cloud(), cloud(seed=3) @ cloud(5, 5, 4)
    c_a, c_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    want = (a.mean(0) - b.mean(0)).square().sum().item() + (c_a + c_b - 2 * sqrtm(c_a @ c_b).real).trace()
    assert frechet_distance(a, b) == pytest.approx(want)


def test_frechet_refuses_sets_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(400, 5\) and \(400, 4\)"):
        frechet_distance(cloud(), cloud(d=4))


def test_precision_and_recall_laws():
    a, b = cloud(), cloud(seed=1)
    assert precision_recall(a, a) == (1.0, 1.0)
    p, r = precision_recall(a, b)
    assert precision_recall(b, a) == (r, p)
    assert precision_recall(a, b + 100) == (0.0, 0.0)
    one_mode = 0.05 * b  # inside, but covers little
    p, r = precision_recall(a, one_mode)
    assert p > 0.95 and r < 0.05
    with pytest.raises(ValueError, match="k = 3"):
        precision_recall(a[:3], b)


def test_precision_against_brute_force():
    a, b = cloud(60, 2), cloud(50, 2, 1) * 2
    radius = [sorted((a - x).norm(dim=1).tolist())[3] for x in a]
    inside = [any((y - x).norm().item() <= r for x, r in zip(a, radius, strict=True)) for y in b]
    assert precision_recall(a, b)[0] == pytest.approx(sum(inside) / 50)


def test_pixel_scores():
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(psnr(x, x + 0.1), torch.full((3,), 20.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(ssim(x, x), torch.ones(3))
    noisy = [ssim(x, (x + s * torch.randn(x.shape)).clamp(0, 1)).mean() for s in (0.05, 0.2, 0.5)]
    assert noisy[0] > noisy[1] > noisy[2]
    constant = lambda v: torch.full((1, 1, 28, 28), v, dtype=torch.float64)  # noqa: E731
    # two constant images: only the luminance term is left, (2ab + c1) / (a² + b² + c1) with c1 = 0.01²
    want = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert ssim(constant(0.2), constant(0.6)).item() == pytest.approx(want, rel=1e-4)


def test_accuracy():
    logits = torch.eye(10)[torch.tensor([0, 1, 2, 2])]
    value, error = accuracy(logits, torch.arange(4))
    assert value == 0.75 and error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def test_the_shipped_classifier_reaches_what_the_manifest_says():
    test = data.load("mnist", "test")
    if not test.real:
        pytest.skip("real MNIST is not below DGM_DATA")
    stated = checkpoints.manifest()["digit_classifier"]["metrics"]["test accuracy"]
    value, error = accuracy(in_batches(digit_classifier(), test.images), test.labels)
    assert value >= 0.992
    assert abs(value - stated["value"]) <= 4 * max(error, stated["error"])


def test_real_against_real_floor_is_measured_again():
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    if not test.real:
        pytest.skip("real MNIST is not below DGM_DATA")
    floor = checkpoints.load_table("digit_floors")["rows"]["draws"]
    index = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:10_000]
    model = digit_classifier()
    a, b = (in_batches(model.features, images) for images in (test.images, train.images[index]))
    spread = max(row["frechet"] for row in floor) - min(row["frechet"] for row in floor)
    assert frechet_distance(a, b) == pytest.approx(floor[0]["frechet"], abs=spread)


def test_density_and_coverage_laws():
    a, b = cloud(), cloud(seed=1)
    assert density_coverage(a, a) == (pytest.approx(6 / 5, abs=0.02), 1.0)  # a ball: its centre, 5 neighbours, rounding
    assert density_coverage(a, b + 100) == (0.0, 0.0)
    q, _ = torch.linalg.qr(cloud(5, 5, 2))
    assert density_coverage(3 * a @ q, 3 * b @ q) == pytest.approx(density_coverage(a, b))
    density, coverage = density_coverage(a, 0.05 * b)  # in the densest region only
    assert density > 1.1 and coverage < 0.2
    with pytest.raises(ValueError, match="k = 5"):
        density_coverage(a[:5], b)


def test_density_and_coverage_of_equal_distributions():
    real, fake = cloud(4000, 3, 5), cloud(4000, 3, 6)
    density, coverage = density_coverage(real, fake)
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.02)  # all k + 1 nearest of 2N exchangeable points: about 2^-k


def test_density_and_coverage_by_brute_force():
    a, b = cloud(60, 2), cloud(50, 2, 1) * 2
    radius = [sorted((a - x).norm(dim=1).tolist())[5] for x in a]
    inside = [[(y - x).norm().item() <= r for x, r in zip(a, radius, strict=True)] for y in b]
    want = sum(map(sum, inside)) / (5 * 50), sum(map(any, zip(*inside, strict=True))) / 60
    assert density_coverage(a, b) == pytest.approx(want)


def test_sharpness_laws():
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing="ij")
    smooth = torch.stack([0.1 * rows + 0.02 * columns, 0.01 * rows**2 - 0.02 * columns**2])[:, None]
    torch.testing.assert_close(sharpness(smooth), torch.zeros(2), atol=1e-9, rtol=0)  # constant Laplacian
    board = ((rows + columns) % 2)[None, None]
    inner = board[0, 0, 1:-1, 1:-1]
    torch.testing.assert_close(sharpness(board), (4 - 8 * inner).var()[None])  # all four neighbours are of the other
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sharpness(0.5 * x + 0.2), 0.25 * sharpness(x))
    torch.testing.assert_close(sharpness(x.transpose(2, 3)), sharpness(x))
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert (sharpness(blurred) < 0.2 * sharpness(x)).all()
    with pytest.raises(ValueError, match="3 × 3"):
        sharpness(x[..., :2])


def gaussian_weights(scale, seed=0):
    """log p(x, z) − log q(z|x) for z ~ N(0, 1), x|z ~ N(z, 1), q = N(x / 2, scale² / 2): exact at scale 1."""
    g = torch.Generator().manual_seed(seed)

    def log_weights(x, k):
        normal = torch.distributions.Normal
        q = normal(x[:, 0] / 2, scale * 0.5**0.5)
        z = q.loc + q.scale * torch.randn(k, len(x), generator=g, dtype=x.dtype)
        return normal(0, 1).log_prob(z) + normal(z, 1).log_prob(x[:, 0]) - q.log_prob(z)

    return log_weights


def test_importance_weighted_bound_on_a_gaussian():
    x = cloud(500, 1, 7)
    exact = torch.distributions.Normal(0, 2**0.5).log_prob(x[:, 0])
    torch.testing.assert_close(importance_weighted_bound(gaussian_weights(1.0), x, 3), exact, rtol=0, atol=1e-5)
    means = []
    for samples in (1, 10, 100, 5000):
        bound = importance_weighted_bound(gaussian_weights(1.3), x, samples)
        means.append((bound - exact).mean().item())
    assert means[0] < means[1] < means[2] < 0.01
    elbo = -(0.5 * (1.3**2 - 1) - math.log(1.3))  # −KL(q ‖ posterior), the same for every x
    assert means[0] == pytest.approx(elbo, abs=0.06)
    assert means[3] == pytest.approx(0, abs=0.002)
    table, asked = cloud(120, 500, 8), []

    def rows(_, k):
        asked.append(k)
        return table[sum(asked) - k : sum(asked)]

    parts = importance_weighted_bound(rows, x, 120, chunk=7)
    assert asked == [7] * 17 + [1]
    torch.testing.assert_close(parts, table.exp().mean(0).log())
    with pytest.raises(ValueError, match="samples is 0"):
        importance_weighted_bound(gaussian_weights(1.0), x, 0)


def test_bootstrap_knows_the_error_of_a_mean():
    a, b = cloud(400, 1), 2 * cloud(900, 1, 1)
    g = torch.Generator().manual_seed(2)
    error = bootstrap_error(lambda s: s.mean().item(), a, repeats=2000, generator=g)
    assert error == pytest.approx((a.std() / 20).item(), rel=0.06)
    error = bootstrap_error(lambda s, t: (s.mean() - t.mean()).item(), a, b, repeats=2000, generator=g)
    assert error == pytest.approx(((a.var() / 400 + b.var() / 900) ** 0.5).item(), rel=0.06)
    with pytest.raises(ValueError, match="repeats is 1"):
        bootstrap_error(lambda s: 0.0, a, repeats=1)
