"""Jobs that score files: `elias-idx score`, from Parquet, JSON lines, CSV and .npy to Parquet.

Needs the extra `elias_idx[score]`.
"""

from elias_idx.score.job import score
from elias_idx.score.manifest import Job, Manifest, Part

__all__ = ["Job", "Manifest", "Part", "score"]
