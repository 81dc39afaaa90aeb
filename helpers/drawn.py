"""Stand-ins for data that is not at hand: scikit-learn's digits, drawn pictures of ten classes, drawn faces."""

import numpy as np
import torch

Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, str]  # images, labels, factors, what they are


def digits(split: str) -> Split:
    """scikit-learn's 1,797 handwritten digits (8 × 8, values 0 to 16) scaled to uint8 [N, 1, 28, 28].

    Every fifth of each class, in a fixed shuffle, is the test split.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    shuffle = np.random.RandomState(0)
    order = [shuffle.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    chosen = [rows[::5] if split == "test" else np.delete(rows, np.s_[::5]) for rows in order]
    index = np.sort(np.concatenate(chosen))
    small = torch.from_numpy(pixels[index]).float().reshape(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bicubic", align_corners=False)
    images = large.round_().clamp_(0, 255).byte()
    return images, torch.from_numpy(labels[index]).long(), None, "scikit-learn digits scaled to 28 × 28"
