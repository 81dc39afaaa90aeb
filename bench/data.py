"""Batches per second against torchvision's usual pipeline, and the time of the second load: `python bench/data.py`.

All rates are measured in one run, in turn, so that a busy machine slows them alike; ratios are what counts.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Iterator

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from helpers import data

SIZE = 128
AHEAD = 4  # batches that two workers hold ready; taken before the clock starts


class Pictures(Dataset):
    """What torchvision's MNIST and CIFAR10 do: array → PIL image → transform, one image at a time."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.arrays = images.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def ours(images: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Our batches, epoch after epoch."""
    batches, step = data.Batches(images, labels, SIZE), 0
    while True:
        yield batches.at(step)
        step += 1


def theirs(images: torch.Tensor, labels: torch.Tensor, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """DataLoader's batches, epoch after epoch; its workers stay alive between epochs."""
    loader = DataLoader(
        Pictures(images, labels),
        SIZE,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def seconds(batches: Iterator, count: int) -> float:
    """Seconds per batch over `count` batches."""
    time.sleep(0.1)  # workers fill their queue, so that they do not run during another's turn
    for _ in range(AHEAD):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - start) / count


def compare(
    images: torch.Tensor, labels: torch.Tensor, repetitions: int = 7, count: int = 30
) -> tuple[list[float], dict[int, list[float]]]:
    """Our batches per second, and our rate over DataLoader's for 0 and 2 workers, one value per repetition."""
    mine = ours(images, labels)
    others = {workers: theirs(images, labels, workers) for workers in (0, 2)}
    rates, ratios = [], {workers: [] for workers in others}
    for _ in range(repetitions):
        own = seconds(mine, 5 * count)
        rates.append(1 / own)
        for workers, batches in others.items():
            ratios[workers].append(seconds(batches, count) / own)
    for batches in others.values():
        batches.close()
    return rates, ratios


def summary(values: list[float], form: str = "{:.1f}") -> str:
    """Median and range."""
    low, middle, high = (form.format(v) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def second_load(name: str, repetitions: int = 5) -> list[float]:
    """Seconds to load a split that is in the cache."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            data.load(name)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print both tables."""
    print(f"batch {SIZE}, float in [0, 1], {torch.get_num_threads()} threads; median (range)\n")
    print("data | ours, batches/s | × DataLoader, 0 workers | × DataLoader, 2 workers")
    print("---|---|---|---")
    for name in ("mnist", "cifar10"):
        with contextlib.redirect_stdout(io.StringIO()):
            found = data.load(name)
        rates, ratios = compare(found.images, found.labels)
        print(f"{found.source} | {summary(rates, '{:.0f}')} | {summary(ratios[0])} | {summary(ratios[2])}")
    print("\ndata | second load of the training split, s")
    print("---|---")
    for name in ("mnist", "cifar10", "faces"):
        with contextlib.redirect_stdout(io.StringIO()):
            found = data.load(name)
        print(f"{found.source} | {summary(second_load(name), '{:.3f}')}")


if __name__ == "__main__":
    main()
