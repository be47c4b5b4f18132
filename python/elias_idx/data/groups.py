"""Groups of rows that belong together, such as the texts about one patient or of one author. N rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from elias_idx.errors import DataError

# What a group is called by; None for a row on its own.
Group: TypeAlias = str | int | None


def group_of(row: Mapping[str, Any], group_field: str | None, where: str) -> Group:
    """The group that a row's field names; None without a field to look at.

    Raises:
        DataError: the row has no such field; `where` says which row it is.
    """
    if group_field is None:
        return None
    if group_field not in row:
        raise DataError(f"{where}: the row has no {group_field!r} to group by; it has {sorted(row)}")
    value: Group = row[group_field]
    return value


def group_numbers(groups: Iterable[Group]) -> npt.NDArray[np.int64]:
    """A number for each row, [N]: the same one for rows of the same group, its own one for a row without a group.

    Raises:
        DataError: a group is neither a string nor a whole number nor None.
    """
    numbers: dict[str | int, int] = {}
    result, total = [], 0
    for row, group in enumerate(groups):
        if not isinstance(group, str | int | np.integer | None) or isinstance(group, bool):
            raise DataError(f"row {row}: a group must be a string, a whole number or None, got {group!r}")
        number = total if group is None else numbers.setdefault(group, total)
        result.append(number)
        total += number == total
    return np.array(result, np.int64)
