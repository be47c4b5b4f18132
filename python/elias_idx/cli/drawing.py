"""What the commands that draw pictures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elias_idx.errors import MissingExtraError
from elias_idx.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_drawing(path: Path) -> None:
    """Refuses, before any work, a picture that can't be drawn.

    Raises:
        MissingExtraError: matplotlib is missing.
        FileNotFoundError: there is no folder for it.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "tune") from error
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: create it first")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a picture of the kind that its name says."""
    from matplotlib import rc_context

    # Letters as text, not as shapes: a tenth of the size. Without the time, so that equal pictures are equal files.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "elias_idx"}), replacing(path) as partial:
        figure.savefig(partial, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
