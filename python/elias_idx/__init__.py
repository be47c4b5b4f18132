"""Search in millions of labels with a learned index.

`Index` needs NumPy alone. `Model`, which joins a text encoder and an index, needs the extra
`elias_idx[train]` and is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

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
    from elias_idx.model import Model

__all__ = [
    "EVIDENCE",
    "Adjacency",
    "BeamResult",
    "ClusterEdges",
    "EliasIdxError",
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
    "SearchResult",
    "ShortlistResult",
    "__version__",
    "instruction_set",
]


def __getattr__(name: str) -> Any:
    if name == "Model":
        try:
            from elias_idx.model import Model
        except ModuleNotFoundError as error:
            from elias_idx.errors import MissingExtraError

            raise MissingExtraError(str(error.name), "train") from error
        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
