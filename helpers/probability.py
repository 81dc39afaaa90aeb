"""Log-densities and KL terms that more than one notebook needs, in nats, summed over the last dimension.

Means over a batch are left to the caller. Everything is differentiable, and as precise as the tensors passed in.
"""

import math

import torch
from torch.nn import functional as F


def normal_log_density(x: torch.Tensor, mu: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    """log N(x; mu, diag exp(log_var)) of x [..., d] → [...]; mu and log_var broadcast."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mu).square() * (-log_var).exp()).sum(-1)


def bernoulli_log_mass(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Σ x log s(logits) + (1 − x) log(1 − s(logits)) of x [..., d] in [0, 1] → [...]; stable for any logits.

    A log-probability for binary x; for grey x the mean of it over binary draws with those means.
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def kl_normal(mu_q: torch.Tensor, log_var_q: torch.Tensor, mu_p: torch.Tensor, log_var_p: torch.Tensor) -> torch.Tensor:
    """KL(N(mu_q, exp log_var_q) ‖ N(mu_p, exp log_var_p)), diagonal covariances, [..., d] → [...]."""
    ratio = log_var_q - log_var_p
    return 0.5 * ((mu_q - mu_p).square() * (-log_var_p).exp() + ratio.exp() - 1 - ratio).sum(-1)


def kl_to_standard_normal(mu: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, diag exp(log_var)) ‖ N(0, I)), [..., d] → [...] (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(-1)
