"""The errors that elias_idx raises besides `ValueError`, `TypeError` and `OSError`."""

from elias_idx._core import EliasIdxError, FormatError

__all__ = ["ConfigError", "DataError", "EliasIdxError", "FormatError", "MissingExtraError", "TrainingError"]


class DataError(EliasIdxError, ValueError):
    """Training or input data that can't be used; the text names file and line."""


class ConfigError(EliasIdxError, ValueError):
    """A setting that is unknown, out of range or at odds with another one."""


class TrainingError(EliasIdxError):
    """Training can't go on; the text says what to change."""


class MissingExtraError(EliasIdxError, ModuleNotFoundError):
    """A package is needed that only an extra of elias_idx brings; the text says what to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: run `pip install 'elias_idx[{extra}]'`")
