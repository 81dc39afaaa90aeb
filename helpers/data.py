"""Data sets as uint8 tensors, and batches of them."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Data:
    """One split: uint8 `images` [N, C, H, W], int64 `labels` [N], `classes`, where it came from, and whether it is real."""

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    source: str
    real: bool
    factors: torch.Tensor | None = None


@dataclass(frozen=True)
class Batches:
    """Batches by index-select from uint8 images [N, C, H, W]; the order depends on (seed, epoch) alone, so that a
    run resumed at any step sees the same batches."""

    images: torch.Tensor
    labels: torch.Tensor
    size: int
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the data; the remainder is left to the next epoch's shuffle."""
        return max(1, len(self.images) // self.size)

    def at(self, step: int, part: int = 0, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `step` (from 0): float images in [0, 1] [B, C, H, W] and labels [B], on the data's device.

        Process `part` of `parts` gets its share of that batch.
        """
        epoch, k = divmod(step, self.steps_per_epoch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        index = order[k * self.size : (k + 1) * self.size][part::parts].to(self.images.device)
        return self.images[index].float().div_(255), self.labels[index]
