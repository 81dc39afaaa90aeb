"""Laws of helpers.disentanglement: known informations, perfect and useless codes, traversals."""

import math

import pytest
import torch

from helpers import disentanglement as dis
from helpers.drawn import FACTORS, draw_faces, faces, random_factors
from helpers.metrics import psnr
from helpers.settings import Settings


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def information_by_quadrature(sigma, bins):
    """I(z; class of v) for v ~ U(−1, 1), z | v ~ N(v, sigma²): entropies on a fine grid."""
    z = torch.linspace(-2.5, 2.5, 20_001, dtype=torch.float64)
    edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)
    cdf = torch.special.ndtr((z[:, None] - edges) / sigma)
    within = (cdf[:, :-1] - cdf[:, 1:]) * bins / 2  # q(z | class): [grid, bins]

    def entropy(q):
        return -torch.trapezoid(torch.special.xlogy(q, q), z, dim=0)

    return (entropy(within.mean(1)) - entropy(within).mean()).item()


@pytest.mark.parametrize(("sigma", "bins"), [(0.05, 10), (0.3, 10), (1.0, 10), (0.1, 5)])
def test_information_about_a_noisy_copy_is_that_of_quadrature(sigma, bins):
    v = torch.rand(4000, 1, generator=generator()) * 2 - 1
    found = dis.mutual_information(v, torch.full_like(v, 2 * math.log(sigma)), v, generator(1), bins)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(information_by_quadrature(sigma, bins), abs=0.04)


def test_information_is_zero_without_dependence_and_log_bins_at_most():
    v = torch.rand(2000, 3, generator=generator()) * 2 - 1
    other = torch.rand(2000, 2, generator=generator(1)) * 2 - 1
    noise = torch.full((2000, 2), -2.0)
    assert dis.mutual_information(other, noise, v, generator(2)).abs().max() < 0.05
    sharp = dis.mutual_information(v, torch.full_like(v, -12.0), v, generator(2))
    assert torch.allclose(sharp.diag(), torch.tensor(math.log(10)), atol=0.03)
    assert (sharp <= math.log(10) + 1e-4).all()


def test_information_does_not_see_the_scale_of_codes_or_factors():
    v = torch.rand(1000, 2, generator=generator()) * 2 - 1
    log_var = torch.full_like(v, -3.0)
    a = dis.mutual_information(v, log_var, v, generator(1))
    b = dis.mutual_information(3 * v + 1, log_var + 2 * math.log(3), v.exp(), generator(1))
    assert torch.allclose(a, b, atol=1e-4)


def test_uneven_classes_are_refused():
    with pytest.raises(ValueError, match="take 100 of them"):
        dis.mutual_information(torch.zeros(105, 2), torch.zeros(105, 2), torch.rand(105, 1), generator(), 10)


def test_gap_by_hand():
    information = torch.tensor([[2.0, 0.1], [0.5, 0.4], [0.2, 0.4]])
    assert dis.mutual_information_gap(information, 5).tolist() == pytest.approx([1.5 / math.log(5), 0.0])


@pytest.mark.parametrize("kind", ["perfect", "rotated", "dead"])
def test_factor_vae_score_of_known_codes(kind, monkeypatch):
    seen = []
    monkeypatch.setattr(dis, "draw_faces", lambda f, side: seen.append(f) or torch.zeros(len(f), 3, 2, 2))
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator()))[0]
    codes = {"perfect": lambda f: f, "rotated": lambda f: f @ rotation, "dead": lambda f: 0 * f}[kind]
    score = dis.factor_vae_score(lambda _: (codes(seen[-1]), None), generator(1), votes=300, faces=32)
    if kind == "perfect":
        assert score == 1
    elif kind == "dead":
        assert score == pytest.approx(1 / 6)
    else:
        assert 1 / 6 < score < 0.95


def test_random_factors_are_those_of_the_drawn_faces():
    factors = random_factors(4000, generator())
    assert torch.equal(factors, faces("train", 8)[2])
    assert factors[:, 0].abs().min() >= 0.25


def test_shapes_and_start_of_the_network():
    mean = torch.rand(3, 32, 32, generator=generator())
    net = dis.FaceVAE(d=4, mean=mean)
    x = draw_faces(random_factors(5, generator()), 32).float() / 255
    mu, log_var = net.encode(x)
    assert mu.shape == log_var.shape == (5, 4)
    assert net.decode(mu).shape == x.shape
    assert (net.decode(mu) - mean).abs().max() < 0.3  # it starts at the mean image
    assert "mean" in net.state_dict()


def test_traverse_changes_one_dimension_at_a_time():
    seen = dis.traverse(lambda z: z, torch.tensor([1.0, 2, 3]), [2, 0], torch.tensor([-1.0, 1]))
    assert seen.tolist() == [[1, 2, -1], [1, 2, 1], [-1, 2, 3], [1, 2, 3]]


def test_there_are_as_many_factors_as_the_score_assumes():
    assert len(FACTORS) == 6


def test_scores_repeat_and_know_a_collapsed_model():
    net = dis.FaceVAE(d=3)
    with torch.no_grad():
        net.encoder[-1].weight.zero_(), net.encoder[-1].bias.zero_()
    images = draw_faces(random_factors(20, generator()), 32).float() / 255
    run = Settings("quick", torch.device("cpu"), 0)
    found = dis.scores(net, images, run, faces=500, votes=24)
    assert found == dis.scores(net, images, run, faces=500, votes=24)
    assert found["rates"] == [0, 0, 0]
    assert abs(found["MIG"]) < 0.01
    assert found["FactorVAE score"] == pytest.approx(1 / 6)
    assert found["PSNR"] == pytest.approx(psnr(images, net.decode(torch.zeros(20, 3))).mean().item(), abs=1e-4)


def test_dimensions_in_use_and_their_labels():
    assert dis.in_use([0.05, 2.0, 0.1, 3.0, 0.2]) == [3, 1, 4]
    information = torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0, 0.7], [0.0, 0.25, 1.5, 0.0, 0.0, 0.0]])
    assert dis.names(information, [1, 0]) == [
        f"$z_{{1}}$: {FACTORS[2]} 1.50, {FACTORS[1]} 0.25",
        f"$z_{{0}}$: {FACTORS[5]} 0.70, {FACTORS[0]} 0.10",
    ]
