"""Where the notebooks are and what their cells are for; read by the runner, the lint and the mutation tests."""

import json
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"


def all_notebooks() -> list[Path]:
    """Every notebook of the collection, in the order of the sheets."""
    return sorted(p for p in NOTEBOOKS.glob("*/*.ipynb") if not p.name.startswith("."))


def name_of(notebook: Path) -> str:
    """ "hw1_vae_gan/q1_gradient_estimators" for that notebook's path."""
    return f"{notebook.parent.name}/{notebook.stem}"


def named(names: Sequence[str]) -> list[Path]:
    """The notebooks of the names given (paths and endings are accepted), all where there are none.

    Raises ValueError for a name that is not there, listing those that are.
    """
    known = {name_of(p): p for p in all_notebooks()}
    wanted = [name.removesuffix(".ipynb").removeprefix("./").removeprefix("notebooks/") for name in names]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"no notebook {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in wanted] if wanted else list(known.values())


def cells_of(notebook: Path) -> list[dict]:
    """The code cells to run without a front-end: id, source, and whether mutants are made of it.

    Cells tagged "figure" define nothing that others use and are left out.
    """
    result = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        meta = cell.get("metadata", {})
        if cell["cell_type"] == "code" and "figure" not in meta.get("tags", []):
            result.append(
                {"id": cell["id"], "source": source, "mutable": bool(meta.get("nbgrader", {}).get("solution"))}
            )
    return result
