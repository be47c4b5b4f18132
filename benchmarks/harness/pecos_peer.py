"""XR-Linear of PECOS on matrices in files, for `harness.peers`; runs in a Python that has PECOS and little else.

python pecos_peer.py FOLDER NUM_THREADS K train|predict
"""

import sys
from pathlib import Path

import scipy.sparse as sp
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel


def main(folder: Path, num_threads: int, k: int, part: str) -> None:
    """Trains on FOLDER's features.npz and labels.npz, or predicts the labels of test_features.npz."""
    if part == "train":
        features, labels = (sp.load_npz(folder / f"{name}.npz").astype("float32") for name in ("features", "labels"))
        tree = Indexer.gen(LabelEmbeddingFactory.create(labels, features, method="pifa"), threads=num_threads, seed=0)
        model = XLinearModel.train(
            features, labels, C=tree, negative_sampling_scheme="tfn+man", threads=num_threads, only_topk=20
        )
        model.save(str(folder / "model"))
    else:
        model = XLinearModel.load(str(folder / "model"), is_predict_only=True)
        test_features = sp.load_npz(folder / "test_features.npz").astype("float32")
        predicted = model.predict(test_features, beam_size=20, only_topk=k, threads=num_threads)
        sp.save_npz(folder / "predicted.npz", predicted.tocsr())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
