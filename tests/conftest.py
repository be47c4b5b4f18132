import pytest

from elias_idx import Index
from helpers_index import build, names_for
from oracle import Parts, random_parts


@pytest.fixture
def parts() -> Parts:
    return random_parts()


@pytest.fixture
def index(parts: Parts) -> Index:
    """An index in memory, with names."""
    return build(parts, label_names=names_for(parts))
