"""Laws of what adversarial trainings share."""

import copy
import math

import matplotlib
import pytest
import torch
from torch import nn

from helpers import gan

matplotlib.use("Agg")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_penalty_of_a_linear_critic_is_known_wherever_it_is_taken():
    w = cloud(12, seed=1)
    penalty = gan.gradient_penalty(lambda x: x.flatten(1) @ w + 5, cloud(7, 3, 2, 2), 9 * cloud(7, 3, 2, 2, seed=2))
    assert penalty.item() == pytest.approx((w.norm().item() - 1) ** 2)


def test_penalty_is_taken_on_the_segments_with_one_uniform_number_a_row():
    real, fake = torch.zeros(20_000, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]]).double().expand(20_000, 2)
    seen = []
    # f = |x|²/2 has slope |x̂| = 5 (1 − u): the mean of (5v − 1)² over v ~ U[0, 1] is 25/3 − 5 + 1
    found = gan.gradient_penalty(lambda x: seen.append(x) or 0.5 * x.square().sum(1), real, fake, seeded())
    assert found.item() == pytest.approx(25 / 3 - 4, abs=4 * 4.5 / 20_000**0.5)
    share = seen[0] / torch.tensor([3.0, 4.0])
    torch.testing.assert_close(share[:, 0], share[:, 1])  # on the segment, not in the box
    assert 0 <= share.min() < 0.001 < 0.999 < share.max() <= 1
    assert share[:, 0].unique().numel() == 20_000


def test_penalty_is_differentiable_twice_and_leaves_the_samples_alone():
    critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, fake = cloud(6, 2), cloud(6, 2, seed=3).requires_grad_()
    gan.gradient_penalty(critic, real, fake, seeded()).backward()
    assert fake.grad is None
    weight, step = critic[0].weight, 1e-6
    exact, direction = weight.grad.clone(), cloud(5, 2, seed=4)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(gan.gradient_penalty(critic, real, fake, seeded()).item())
        with torch.no_grad():
            weight -= sign * step * direction
    assert (exact * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


def test_penalty_of_a_flat_critic_is_one_with_finite_gradients():
    critic = nn.Linear(3, 1)
    nn.init.zeros_(critic.weight)
    penalty = gan.gradient_penalty(critic, torch.randn(4, 3), torch.randn(4, 3))
    penalty.backward()
    assert penalty.item() == 1 and critic.weight.grad.isfinite().all()


def test_penalty_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(4, 2\), fake \(3, 2\)"):
        gan.gradient_penalty(nn.Linear(2, 1), torch.zeros(4, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="one value a row"):
        gan.gradient_penalty(nn.Linear(2, 2), torch.zeros(4, 2), torch.zeros(4, 2))


def test_gradient_norm_is_that_of_all_gradients_together():
    a, b, c = (torch.zeros(n, requires_grad=True) for n in (3, 2, 4))
    (a @ torch.tensor([2.0, 3.0, 6.0]) + 24 * b[1]).backward()
    assert gan.gradient_norm([a, b, c]) == pytest.approx(25.0)
    with pytest.raises(ValueError, match="after backward"):
        gan.gradient_norm([c])


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def walk(model, average, steps, seed):
    seen = []
    for k in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn(p.shape, generator=seeded(100 * seed + k))
        model(torch.randn(8, 2, generator=seeded(k)))
        average.update_parameters(model)
        seen.append(model[0].weight.detach().clone())
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_average_is_the_weighted_sum_of_all_weights_seen(decay):
    model = net()
    average = gan.EMA(model, decay)
    seen = walk(model, average, 6, 1)
    d = [0.0] + [min(decay, (1 + n) / (10 + n)) for n in range(1, 6)]
    share = [(1 - d[k]) * math.prod(d[k + 1 :]) for k in range(6)]
    assert sum(share) == pytest.approx(1)
    torch.testing.assert_close(average.module[0].weight, sum(s * w for s, w in zip(share, seen, strict=True)))
    torch.testing.assert_close(average.module[1].running_mean, model[1].running_mean)
    assert average.module[1].num_batches_tracked == 6
    assert not average.module.training and not any(p.requires_grad for p in average.parameters())


def test_average_resumes_exactly_and_takes_a_proper_decay():
    torch.manual_seed(0)
    model = net()
    average = gan.EMA(model, 0.9)
    walk(model, average, 4, 1)
    other_model = copy.deepcopy(model)
    other = gan.EMA(other_model, 0.9)
    other.load_state_dict(average.state_dict())
    walk(model, average, 4, 2)
    walk(other_model, other, 4, 2)
    for key, value in average.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    with pytest.raises(ValueError, match="decay is 1"):
        gan.EMA(model, 1.0)


def test_centres_have_their_symmetries():
    centres = gan.ring(8, 2.0)
    assert centres.shape == (8, 2)
    torch.testing.assert_close(centres.norm(dim=1), torch.full((8,), 2.0))
    gap = torch.cdist(centres, centres).fill_diagonal_(9).amin(1)
    torch.testing.assert_close(gap, torch.full((8,), 4 * math.sin(math.pi / 8)))
    square = gan.grid(5, 2.0)
    assert square.shape == (25, 2) and square.abs().max() == 4
    torch.testing.assert_close(square.sum(0), torch.zeros(2))
    assert {tuple(c) for c in square.tolist()} == {(a, b) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)}
    assert gan.grid(2, 3.0).abs().unique().tolist() == [1.5]


def test_mixture_has_equal_weights_and_the_spread_asked_for():
    centres, n = gan.ring(), 40_000
    x = gan.mixture_sample(centres, 0.02, n, seeded())
    found = gan.mode_statistics(x, centres, 3 * 0.02)
    inside = 1 - math.exp(-4.5)  # the radius of a 2-D Gaussian has P(r ≤ 3σ) = 1 − exp(−3²/2)
    assert found.quality == pytest.approx(inside, abs=4 * (inside * (1 - inside) / n) ** 0.5)
    share = inside / 8
    assert all(abs(c / n - share) < 4 * (share * (1 - share) / n) ** 0.5 for c in found.counts)
    assert found.name == "all modes" and found.covered == 8
    assert torch.equal(x, gan.mixture_sample(centres, 0.02, n, seeded()))


def test_statistics_do_not_depend_on_order_and_turn_with_the_plane():
    centres = gan.grid()
    x = gan.mixture_sample(centres, 0.7, 900, seeded())
    found = gan.mode_statistics(x, centres, 0.6, 20)
    q = torch.linalg.qr(torch.randn(2, 2, generator=seeded(1)))[0]
    assert gan.mode_statistics(x.flip(0) @ q, centres @ q, 0.6, 20) == found
    counts = [0] * 25  # brute force
    for point in x:
        distance = (centres - point).norm(dim=1)
        if distance.min() <= 0.6:
            counts[int(distance.argmin())] += 1
    assert found.counts == tuple(counts) and found.covered == sum(c >= 20 for c in counts)
    assert found.quality == sum(counts) / 900


@pytest.mark.parametrize(
    ("counts", "name", "covered"),
    [
        ((50, 0, 0, 0), "collapse", 1),
        ((40, 9, 51, 0), "collapse", 2),  # the 9 are too few
        ((30, 10, 20, 0), "modes lost", 3),
        ((10, 10, 10, 10), "all modes", 4),
        ((3, 3, 2, 1), "off the modes", 0),
    ],
)
def test_a_failure_is_named(counts, name, covered):
    modes = gan.Modes(counts, 100, at_least=10)
    assert (modes.name, modes.covered) == (name, covered)


def test_samples_that_are_no_numbers_are_not_good():
    x = torch.tensor([[float("nan"), 0.0], [math.inf, 0.0], [2.0, 0.0], [2.0, 0.0]])
    assert gan.mode_statistics(x, gan.ring(), 0.1).counts == (2, 0, 0, 0, 0, 0, 0, 0)
    for wrong in (torch.zeros(0, 2), torch.zeros(5, 3)):
        with pytest.raises(ValueError, match=r"wanted \[N, d\]"):
            gan.mode_statistics(wrong, gan.ring(), 0.1)


def test_a_frame_is_taken_in_evaluation_mode_which_is_set_back():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = copy.deepcopy(model.state_dict())
    z = torch.randn(4, 2)
    found = gan.frame(model, z)
    assert model.training and not found.requires_grad
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    torch.testing.assert_close(found, model.eval()(z))
    assert gan.frame(model, z) is not None and not model.training


def test_a_strip_has_one_row_a_step_in_order_of_steps():
    frames = {2_000: torch.ones(3, 1, 4, 4), 10: torch.zeros(3, 1, 4, 4)}
    ax = gan.film_strip(frames)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["step 10", "step 2,000"]
    sheet = ax.images[0].get_array()
    assert sheet[:4, :4].max() == 0 and sheet[5:9, :4].min() == 1
    with pytest.raises(ValueError, match="wanted one shape"):
        gan.film_strip({1: torch.zeros(3, 1, 4, 4), 2: torch.zeros(2, 1, 4, 4)})
    with pytest.raises(ValueError, match="0 frames"):
        gan.film_strip({})
