"""Sliders where a reader turns the knob, and a static figure where nobody is there to do so."""

import os
import sys
from collections.abc import Callable

import matplotlib.pyplot as plt


def live() -> bool:
    """Whether a person's front-end drives this kernel (Jupyter server, Colab, VS Code); DGM_LIVE=0 or 1 decides."""
    if "DGM_LIVE" in os.environ:
        return os.environ["DGM_LIVE"] == "1"
    if "NBGRADER_EXECUTION" in os.environ:
        return False
    main = vars(sys.modules["__main__"])
    return "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules or "__vsc_ipynb_file__" in main


def explore(draw: Callable[..., object], twin: Callable[[], object], **controls: object) -> None:
    """Show the static figure `twin()`, and, when `live()`, `draw(**values)` with one control per keyword.

    Controls are ipywidgets' abbreviations ((low, high, step), lists, widgets). A runner without a front-end would
    stall on them, so there the twin stands alone.
    """
    twin()
    plt.show()
    if live():
        from ipywidgets import interact

        def redraw(**values: object) -> None:
            draw(**values)
            plt.show()

        interact(redraw, **controls)
