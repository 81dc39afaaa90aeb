"""Densities integrate to one and agree with torch.distributions; KL terms are what quadrature says."""

import pytest
import torch
from torch import distributions as D

from helpers.probability import bernoulli_log_mass, kl_normal, kl_to_standard_normal, normal_log_density


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normal_density_integrates_to_one_and_agrees():
    line = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None]
    mu, log_var = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    assert torch.trapezoid(normal_log_density(line, mu, log_var).exp(), line[:, 0]).item() == pytest.approx(1)
    x, mu, log_var = draw(4, 3), draw(4, 3, seed=1), draw(4, 3, seed=2)
    want = D.Normal(mu, (log_var / 2).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(normal_log_density(x, mu, log_var), want)


def test_bernoulli_mass_sums_to_one_and_is_stable():
    logits = 3 * draw(3)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    assert bernoulli_log_mass(every, logits.expand(8, 3)).exp().sum().item() == pytest.approx(1)
    x = torch.tensor([[1.0, 0.0]])
    assert torch.equal(bernoulli_log_mass(x, torch.tensor([[1e4, -1e4]])), torch.zeros(1))
    assert bernoulli_log_mass(x, torch.tensor([[-1e4, 1e4]])).item() == -2e4


def test_bernoulli_mass_of_grey_is_the_mean_over_binary_draws():
    grey, logits = torch.tensor([[0.3, 0.9]], dtype=torch.float64), draw(1, 2)
    binary = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    weight = torch.where(binary == 1, grey, 1 - grey).prod(1)
    mean = (weight * bernoulli_log_mass(binary, logits.expand(4, 2))).sum()
    torch.testing.assert_close(bernoulli_log_mass(grey, logits)[0], mean)


def test_kl_against_quadrature():
    mu_q, log_var_q, mu_p, log_var_p = (torch.tensor([v], dtype=torch.float64) for v in (0.4, -0.5, -1.0, 0.8))
    line = torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None]
    log_q, log_p = normal_log_density(line, mu_q, log_var_q), normal_log_density(line, mu_p, log_var_p)
    want = torch.trapezoid(log_q.exp() * (log_q - log_p), line[:, 0])
    torch.testing.assert_close(kl_normal(mu_q, log_var_q, mu_p, log_var_p), want)


def test_kl_laws():
    mu, log_var, other = draw(5, 3), draw(5, 3, seed=1), draw(5, 3, seed=2)
    assert torch.allclose(kl_normal(mu, log_var, mu, log_var), torch.zeros(5, dtype=torch.float64))
    assert (kl_normal(mu, log_var, other, -log_var) > 0).all()
    zero = torch.zeros_like(mu)
    torch.testing.assert_close(kl_to_standard_normal(mu, log_var), kl_normal(mu, log_var, zero, zero))
    shift, scale = 1.7, 2.3  # KL does not change under one affine map of both
    moved = kl_normal(
        scale * mu + shift,
        log_var + 2 * torch.tensor(scale).log(),
        scale * other + shift,
        -log_var + 2 * torch.tensor(scale).log(),
    )
    torch.testing.assert_close(moved, kl_normal(mu, log_var, other, -log_var), rtol=1e-6, atol=1e-6)


def test_every_argument_gets_a_gradient():
    for function, count in ((kl_normal, 4), (kl_to_standard_normal, 2), (normal_log_density, 3)):
        arguments = [draw(2, 3, seed=s).requires_grad_() for s in range(count)]
        assert torch.autograd.gradcheck(function, arguments)
    logits = draw(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda l: bernoulli_log_mass(torch.full((2, 3), 0.3, dtype=torch.float64), l), [logits]
    )
