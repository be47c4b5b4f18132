"""What tests of interrupted runs share."""

import pytest

from elias_idx.train import stages


@pytest.fixture
def checkpoint_every_epoch(monkeypatch):
    """Checkpoints as if each epoch took longer than the time between two of them."""
    monkeypatch.setattr(stages, "CHECKPOINT_SECONDS", 0.0)
