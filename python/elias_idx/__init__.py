"""Search in millions of labels with a learned index.

`Index` needs NumPy alone. `Model`, which joins a text encoder and an index, and `Ensemble`, which joins models, need
the extra `elias_idx[text]` and are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from elias_idx._change import NewEvidence
from elias_idx._core import EliasIdxError, FormatError, LabelFilter, __version__, instruction_set
from elias_idx._fusion import EVIDENCE, Evidence, FusionTrees
from elias_idx.index import Index
from elias_idx.results import (
    Adjacency,
    BeamResult,
    ClusterEdges,
    LabelEdges,
    LabelExplanation,
    LabelNames,
    LabelPath,
    SearchResult,
    ShortlistResult,
)

if TYPE_CHECKING:
    from elias_idx.ensemble import Ensemble
    from elias_idx.model import Model

__all__ = [
    "EVIDENCE",
    "Adjacency",
    "BeamResult",
    "ClusterEdges",
    "EliasIdxError",
    "Ensemble",
    "Evidence",
    "FormatError",
    "FusionTrees",
    "Index",
    "LabelEdges",
    "LabelExplanation",
    "LabelFilter",
    "LabelNames",
    "LabelPath",
    "Model",
    "NewEvidence",
    "SearchResult",
    "ShortlistResult",
    "__version__",
    "instruction_set",
]


def __getattr__(name: str) -> Any:
    if name in ("Ensemble", "Model"):
        try:
            return getattr(import_module(f"elias_idx.{name.lower()}"), name)
        except ModuleNotFoundError as error:
            from elias_idx.errors import MissingExtraError

            raise MissingExtraError(str(error.name), "text") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
