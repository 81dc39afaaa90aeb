"""The loop: gradient descent where it is known, exact resumption after a kill, two processes as one."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.data import Batches
from helpers.training import TrainingError, cosine, fit, sweep

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


def toy(n=64, size=16):
    g = torch.Generator().manual_seed(1)
    return Batches(torch.randint(0, 256, (n, 1, 2, 2), generator=g, dtype=torch.uint8), torch.arange(n), size, seed=3)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1))


def loss(model, batch):
    x, _ = batch
    value = (model(x + 0.1 * torch.randn_like(x)) - 1).square().mean()
    return {"loss": value, "twice": 2 * value}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_one_step_is_gradient_descent():
    model, batches = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), toy()
    before, (x, _) = weights(model), batches.at(0)
    value = (model(x) - 1).square().mean()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
    plain = lambda m, b: {"loss": (m(b[0]) - 1).square().mean()}  # noqa: E731
    result = fit(model, plain, batches, steps=1, optimizer=torch.optim.SGD, lr=0.1, device=CPU)
    torch.testing.assert_close(weights(model), before - 0.1 * gradient)
    assert result.history["loss"] == [pytest.approx(value.item())]


def test_clip_schedule_and_average():
    model, batches = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), toy()
    slope = lambda m, b: {"loss": 1000 * sum(p.sum() for p in m.parameters())}  # noqa: E731
    options = {"optimizer": torch.optim.SGD, "lr": 1.0, "device": CPU}
    before = weights(model)
    fit(model, slope, batches, steps=1, clip=0.5, **options)
    assert (weights(model) - before).norm().item() == pytest.approx(0.5, rel=1e-4)
    middle = weights(model)
    fit(model, slope, batches, steps=3, schedule=lambda _: 0.0, **options)
    assert torch.equal(weights(model), middle)
    result = fit(model, slope, batches, steps=2, clip=1.0, ema=0.75, **options)
    last = weights(model)  # two equal steps: the average starts at the first of them
    torch.testing.assert_close(weights(result.model), 0.75 * (middle + last) / 2 + 0.25 * last)


def test_history_is_plain_numbers_and_the_callers_randomness_is_untouched():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    hook = lambda m, e: {"norm": weights(m).norm()}  # noqa: E731
    result = fit(net(), loss, toy(), steps=10, every=4, hook=hook, device=CPU)
    assert result.history["step"] == [4, 8, 10] and result.history["epoch"] == [1, 2]
    json.dumps(result.history)
    assert all(b == pytest.approx(2 * a) for a, b in zip(result.history["loss"], result.history["twice"], strict=True))
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_loss_that_is_not_finite_names_step_term_and_value():
    def bad(model, batch):
        terms = loss(model, batch)
        bad.calls += 1
        return terms if bad.calls != 7 else terms | {"twice": terms["twice"] * math.inf}

    bad.calls = 0
    with pytest.raises(TrainingError, match="step 6: term 'twice' is inf"):
        fit(net(), bad, toy(), steps=10, every=4, device=CPU)


SCRIPT = """
import sys, time, torch
sys.path.insert(0, "tests")
from pathlib import Path
from test_training import CPU, loss, net, toy
from helpers.training import fit
from safetensors.torch import save_file
def slow(model, batch):
    time.sleep(0.004)
    return loss(model, batch)
state = Path(sys.argv[1])
r = fit(net(), slow, toy(), steps=300, every=10, ema=0.9, clip=1.0, state=state, save_seconds=0, device=CPU)
w = torch.cat([p.flatten() for p in r.model.parameters()])
save_file({"w": w, "l": torch.tensor(r.history["loss"])}, sys.argv[2])
"""


def test_killed_at_random_and_started_again_it_ends_with_the_same_numbers(tmp_path):
    from safetensors.torch import load_file

    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = lambda n: [sys.executable, "-c", SCRIPT, str(tmp_path / f"state{n}"), str(tmp_path / f"out{n}")]  # noqa: E731
    subprocess.run(run(0), env=env, cwd=ROOT, check=True, timeout=120)
    state, kills = tmp_path / "state1", 0
    for wait in (0.35, 0.6):  # a step after a state was seen: different at each run of the test
        child = subprocess.Popen(run(1), env=env, cwd=ROOT)
        seen = state.stat().st_mtime_ns if state.exists() else 0
        while child.poll() is None and (not state.exists() or state.stat().st_mtime_ns == seen):
            time.sleep(0.01)
        time.sleep(wait * torch.rand(()).item())
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills == 2 and state.exists() and not (tmp_path / "out1").exists()
    subprocess.run(run(1), env=env, cwd=ROOT, check=True, timeout=120)
    whole, resumed = load_file(tmp_path / "out0"), load_file(tmp_path / "out1")
    assert torch.equal(whole["w"], resumed["w"]) and torch.equal(whole["l"], resumed["l"])
    assert not state.exists()


def test_a_state_of_another_run_is_refused(tmp_path):
    path = tmp_path / "state"

    def stop(model, batch):
        if path.exists():
            raise KeyboardInterrupt
        return loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(net(), stop, toy(), steps=9, every=2, state=path, save_seconds=0, device=CPU)
    with pytest.raises(TrainingError, match="'seed': 0.*'seed': 1.*delete it"):
        fit(net(), loss, toy(), steps=9, every=2, seed=1, state=path, device=CPU)
    assert path.exists()


def both(path):
    """One process of two: writes its weights when it is the first."""
    from accelerate import PartialState

    plain = lambda m, b: {"loss": (m(b[0]) - 1).square().mean()}  # noqa: E731
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    result = fit(model, plain, toy(), steps=12, every=5, optimizer=torch.optim.SGD, lr=0.1, device=CPU)
    if PartialState().process_index == 0:
        torch.save({"w": weights(model), "l": torch.tensor(result.history["loss"])}, path)


def test_two_processes_give_the_numbers_of_one(tmp_path):
    code = "import sys; sys.path.insert(0, 'tests'); from test_training import both; both(sys.argv[1])"
    script = tmp_path / "script.py"
    script.write_text(code)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(tmp_path / "one")], env=env, cwd=ROOT, check=True, timeout=120)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", str(script), str(tmp_path / "two")]
    subprocess.run(launch, env=env, cwd=ROOT, check=True, timeout=180)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_cosine():
    f = cosine(110, warmup=10)
    assert f(0) == pytest.approx(0.1) and f(10) == 1 and f(60) == pytest.approx(0.5) and f(110) == pytest.approx(0)


def test_sweep_goes_on_where_it_stopped(tmp_path):
    calls, state = [], tmp_path / "rows.json"

    def one(key):
        calls.append(key)
        if calls == ["a", "b"]:
            raise KeyboardInterrupt
        return {"key": key}

    with pytest.raises(KeyboardInterrupt):
        sweep(["a", "b"], one, state)
    assert sweep(["a", "b"], one, state) == {"a": {"key": "a"}, "b": {"key": "b"}}
    assert calls == ["a", "b", "b"]
