"""Train the digit classifier that later notebooks measure with: `python -m course.digits` (DGM_PROFILE=full)."""

import torch
from torch import nn
from torch.nn import functional as F

from helpers import checkpoints, data
from helpers.metrics import DigitClassifier, accuracy, frechet_distance, in_batches, precision_recall
from helpers.settings import start, state_folder
from helpers.training import cosine, fit

SIZE = 128  # images a step
LR = 2e-3  # AdamW, with warm-up and cosine decay


def jitter(x: torch.Tensor) -> torch.Tensor:
    """A random rotation (σ = 8°), scale (σ = 8 %), shear and shift (up to 2 pixels) of each image [N, 1, 28, 28]."""
    n = len(x)
    angle, scale = torch.randn(n) * 0.14, 1 + torch.randn(n) * 0.08
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * angle.cos(), -scale * angle.sin() + torch.randn(n) * 0.1
    theta[:, 1, 0], theta[:, 1, 1] = scale * angle.sin(), scale * angle.cos()
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * 2 / 14
    return F.grid_sample(x, F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False), align_corners=False)


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cross-entropy, smoothed by 0.02 so that confidence stays informative."""
    x, y = batch
    return {"loss": F.cross_entropy(model(jitter(x)), y, label_smoothing=0.02)}


def main() -> None:
    """Train, measure on the test split, ship; and the real-against-real floors of the distances."""
    run = start(seed=0)
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    batches = data.Batches(train.images, train.labels, SIZE, run.seed)
    steps = run.pick(quick=20, full=14 * batches.steps_per_epoch)
    result = fit(
        DigitClassifier(),
        loss,
        batches,
        steps=steps,
        optimizer=torch.optim.AdamW,
        lr=LR,
        schedule=cosine(steps, warmup=300),
        ema=0.998,
        hook=lambda model, _: {"test accuracy": accuracy(in_batches(model, test.images), test.labels)[0]},
        state=state_folder() / "digit_classifier.safetensors",
        device=run.device,
    )
    print(result.history.get("test accuracy"), f"{result.seconds:.0f} s")
    if not (run.full and train.real):
        return
    model = result.model.cpu()
    value, error = accuracy(in_batches(model, test.images), test.labels)
    record = checkpoints.provenance(run, "course/digits.py", train.source, result.seconds, steps=steps, split="train")
    metrics = {"test accuracy": {"value": value, "n": len(test.labels), "error": error}}
    checkpoints.save("digit_classifier", model, arguments={}, metrics=metrics, record=record)
    floors()


def floors() -> None:
    """Test digits against as many training digits: what a perfect model would score."""
    from helpers.metrics import digit_classifier

    run = start(seed=0)
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    model = digit_classifier()
    real = in_batches(model.features, test.images)
    rows = []
    for seed in range(5):
        index = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(seed))[: len(real)]
        other = in_batches(model.features, train.images[index])
        precision, recall = precision_recall(real, other)
        rows.append({"frechet": frechet_distance(real, other), "precision": precision, "recall": recall})
    confident = (in_batches(model, test.images).softmax(1).amax(1) > 0.9).double().mean().item()
    table = {"draws": rows, "n": len(real), "k": 3, "confident share": confident}
    checkpoints.save_table("digit_floors", table, checkpoints.provenance(run, "course/digits.py", test.source, 0.0))
    print(table)


if __name__ == "__main__":
    main()
