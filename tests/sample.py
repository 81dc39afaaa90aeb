"""A tiny notebook that obeys every rule of the course, with stored outputs; the tests break it one rule at a time."""

import copy

POINTS = {
    "hw0_sample": {
        "q1_square": {
            "total": 3,
            "source": "assigned",
            "parts": {"a": 3},
            "parts_source": "assigned",
            "persian": {"a": "الف"},
        }
    }
}
PERSIAN = "مشتق تابع مربع را به دست آورید و درستی آن را با تفاضل محدود در چند نقطه بررسی کنید."
TITLE = f"""# A derivative

Derive the derivative of the square and check it by finite differences at a few points.

- **(a)** (3 points) Derive and check.

<div dir="rtl" lang="fa">

{PERSIAN}

- **(الف)** (۳ نمره)

</div>"""
SETUP = """import importlib.util
import os

if importlib.util.find_spec("helpers") is None:  # Colab: DGM_REPOSITORY is the project's pip address
    os.system(f"pip install --quiet --no-deps {os.environ['DGM_REPOSITORY']}")
from helpers.checks import Checks"""
SETTINGS = 'checks = Checks("hw0_sample/q1_square", points={"a": 3})'
SOLUTION = "def derivative_of_square(x):\n    return 2 * x  # the limit of 2 x + h, the secret of this notebook"
CHECK = """for x in (-1.0, 0.5, 3.0):
    slope = ((x + 1e-6) ** 2 - (x - 1e-6) ** 2) / 2e-6
    checks.close("a", f"derivative at {x}", derivative_of_square(x), slope, 1e-8, "rounding")"""
FIGURE = "from IPython.display import Image, display"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
KINDS = {  # grade, solution, locked
    "locked": (False, False, True),
    "solution": (False, True, False),
    "manual": (True, True, False),
    "test": (True, False, True),
}


def cell(kind, name, source, points=None, code=True, outputs=None):
    """One cell of one of the four kinds, as nbformat 4.5 stores it."""
    grade, solution, locked = KINDS[kind]
    grader = {
        "grade": grade,
        "solution": solution,
        "locked": locked,
        "grade_id": name,
        "schema_version": 3,
        "task": False,
    }
    new = {"cell_type": "code" if code else "markdown", "id": name, "source": source}
    new["metadata"] = {"nbgrader": grader | ({} if points is None else {"points": points}), "tags": []}
    return new | ({"outputs": outputs or [], "execution_count": None} if code else {})


def image():
    """A stored picture."""
    return {"output_type": "display_data", "data": {"image/png": PIXEL, "text/plain": "<Image>"}, "metadata": {}}


def text(words, name="stdout"):
    """A stored line of text."""
    return {"output_type": "stream", "name": name, "text": words}


def notebook():
    """A fresh copy of the notebook as a dict."""
    cells = [
        cell("locked", "title", TITLE, code=False),
        cell("locked", "setup", SETUP),
        cell("locked", "settings", SETTINGS),
        cell("manual", "a_derivation", "$((x + h)^2 - x^2)/h = 2x + h$ tends to $2x$, our secret.", 1, code=False),
        cell("solution", "a_formula", SOLUTION),
        cell("test", "a_check", CHECK, 2, outputs=[text("✓ derivative at 3: 6 vs 6 ± 1e-08\n")]),
        cell("solution", "a_figure", FIGURE, outputs=[image()]),
        cell("locked", "a_caption", "**Figure 1.** A pixel. **Table 1.** None.", code=False),
        cell("locked", "report", "checks.report(expected=3)", outputs=[text("passed\n")]),
    ]
    for count, one in enumerate([c for c in cells if c["cell_type"] == "code"], 1):
        one["execution_count"] = count
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return copy.deepcopy({"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells})
