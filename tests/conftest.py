from typing import Any

import oracle
import pytest

from elias_idx import Index


@pytest.fixture
def parts() -> oracle.Parts:
    return oracle.random_parts()


@pytest.fixture
def index(parts: oracle.Parts) -> Index:
    """An index in memory, with names."""
    return build(parts, label_names=[f"label {label}" for label in range(len(parts.label_bias))])


def build(parts: oracle.Parts, **changes: Any) -> Index:
    return Index.build(**{**parts.build_args(), **changes})
