"""Training, in the order in which it happens.

encoders                trainable halves of the encoders
clustering              stage 0: labels → clusters
stage1                  classifiers over the fixed clusters
approximate_adjacency   which labels each cluster may lead to
stage2                  the adjacency learned with the rest
pipeline                all of it, from texts to a saved model
"""

from elias_idx.data import TrainingSet
from elias_idx.train.checkpoint import Progress
from elias_idx.train.pipeline import dry_run, train_model
from elias_idx.train.run_folder import IfExists
from elias_idx.train.stages import EpochResult

__all__ = ["EpochResult", "IfExists", "Progress", "TrainingSet", "dry_run", "train_model"]
