"""Figures that return axes: grids of images, curves, one style. What is plotted is computed elsewhere."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

STYLE = {
    "figure.dpi": 110,
    "figure.figsize": (6.4, 3.4),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "font.size": 9,
    "image.cmap": "gray",
    # Okabe and Ito's palette, light and dark alternating so that grey prints stay readable
    "axes.prop_cycle": plt.cycler(color=["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]),
}


def use_style() -> None:
    """The style of the collection: 110 dpi, colour-blind-safe, readable in grey."""
    plt.rcParams.update(STYLE)


def image_grid(
    images: torch.Tensor, columns: int = 10, titles: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Tile images [N, C, H, W] in [0, 1] (or uint8) row by row on one axis; `titles` label the rows.

    Raises ValueError for another rank or for a number of row titles that does not match.
    """
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted [N, C, H, W]")
    images = images.detach().cpu().float() / (255 if images.dtype == torch.uint8 else 1)
    n, c, h, w = images.shape
    rows = -(-n // columns)
    if titles is not None and len(titles) != rows:
        raise ValueError(f"{len(titles)} row titles for {rows} rows")
    tiles = torch.ones(rows * columns, c, h + 1, w + 1)
    tiles[:n, :, :h, :w] = images.clamp(0, 1)
    sheet = tiles.view(rows, columns, c, h + 1, w + 1).permute(0, 3, 1, 4, 2).reshape(rows * (h + 1), -1, c)
    if ax is None:
        width = min(8.0, 0.62 * columns + (1.0 if titles else 0))
        _, ax = plt.subplots(figsize=(width, width * rows * (h + 1) / (columns * (w + 1))))
    ax.imshow(sheet.squeeze(-1).numpy(), vmin=0, vmax=1, interpolation="nearest")
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([(h + 1) * (r + 0.5) for r in range(rows)] if titles else [], titles or [])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """One line per name, (x values, y values); markers differ too, so that grey prints can be told apart."""
    if ax is None:
        _, ax = plt.subplots()
    for (name, (x, y)), style in zip(lines.items(), ["-", "--", "-.", ":"] * len(lines), strict=False):
        ax.plot(x, y, style, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax
