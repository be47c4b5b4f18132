"""What a job's folder says of the job: its model, options and inputs, and the parts that are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elias_idx import __version__
from elias_idx.errors import ConfigError, FormatError
from elias_idx.files import is_plain_path, replacing
from elias_idx.score.batches import Position
from elias_idx.score.inputs import InputFile

# Readers of Parquet folders pass over names that begin so.
NAME = "_manifest.json"
FORMAT = "elias_idx_scores"
FORMAT_VERSION = 1

_INSTEAD = "give what the job began with to go on, or --overwrite to start over"


@dataclass(frozen=True)
class Part:
    """A finished file of results.

    Attributes:
        file: its name.
        rows: how many rows it has,
        null_rows: and how many of them are null, as they could not be scored.
        sha256: of its content.
        end: where the next part begins.
    """

    file: str
    rows: int
    null_rows: int
    sha256: str
    end: Position


@dataclass(frozen=True)
class Job:
    """What a job's results follow from.

    Attributes:
        model: the model's path.
        fingerprint: a checksum of all that is in it.
        options: name → value.
        inputs: {"name", "size", "modified"} of each file.
    """

    model: str
    fingerprint: str
    options: Mapping[str, Any]
    inputs: list[dict[str, Any]]

    @classmethod
    def of(cls, model: Path, options: Mapping[str, Any], files: list[InputFile]) -> Job:
        """Describes a job."""
        inputs = [{"name": file.name, "size": file.size, "modified": file.modified} for file in files]
        return cls(str(model.absolute()), _fingerprint(model), options, inputs)

    def check_goes_on(self, folder: Path, begun: Job) -> None:
        """Raises a ConfigError that names the first difference to a job that was begun, if its results would differ."""
        if self.fingerprint != begun.fingerprint:
            raise ConfigError(
                f"{folder} has results of another model, {begun.model} as it was then, not of {self.model}: {_INSTEAD}"
            )
        for name in sorted({*self.options, *begun.options}):
            now, then = self.options.get(name), begun.options.get(name)
            # Without an error so far there was no bad row so far.
            if now != then and (name, then) != ("on_error", "raise"):
                raise ConfigError(f"{folder} has results of {name} = {then}, now it is {now}: {_INSTEAD}")
        for now, then in zip(self.inputs, begun.inputs, strict=False):
            if now["name"] != then["name"]:
                raise ConfigError(
                    f"{folder} has results of the input {then['name']}, now it is {now['name']}: {_INSTEAD}"
                )
            if now != then:
                raise ConfigError(f"the input {now['name']} has changed since {folder} was begun: {_INSTEAD}")
        if len(self.inputs) != len(begun.inputs):
            longer = max(self.inputs, begun.inputs, key=len)
            is_new = longer is self.inputs
            name = longer[min(len(self.inputs), len(begun.inputs))]["name"]
            raise ConfigError(f"the input {name} is {'new' if is_new else 'gone'} since {folder} was begun: {_INSTEAD}")


@dataclass(frozen=True)
class Manifest:
    """A job and how far it is.

    Attributes:
        job: the job.
        parts: those that are finished, in order.
        finished: whether these are all.
    """

    job: Job
    parts: tuple[Part, ...] = ()
    finished: bool = False

    @property
    def rows(self) -> int:
        """Rows of all finished parts."""
        return sum(part.rows for part in self.parts)

    @property
    def null_rows(self) -> int:
        """Null rows of all finished parts."""
        return sum(part.null_rows for part in self.parts)

    @property
    def end(self) -> Position:
        """Where the next part begins."""
        return self.parts[-1].end if self.parts else Position(0, 0)

    def save(self, folder: Path) -> None:
        """Puts the manifest into the job's folder, in one step.

        Raises:
            OSError: it can't be written.
        """
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": f"elias_idx {__version__}",
            **asdict(self.job),
            "rows": self.rows,
            "null_rows": self.null_rows,
            "finished": self.finished,
        }
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        parts = ",".join("\n    " + json.dumps(part.__dict__) for part in self.parts)
        with replacing(folder / NAME) as partial:
            partial.write_text("{\n" + ",\n".join([*lines, f'  "parts": [{parts}]']) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """Reads the manifest of a folder; None if it has none.

        Raises:
            FormatError: it is damaged, or of a newer version.
        """
        try:
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{folder / NAME} is damaged: {error}") from error
        try:
            if (content["format"], content["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise FormatError(f"{folder / NAME} is of another version: upgrade elias_idx, or give --overwrite")
            job = Job(*(content[name] for name in ("model", "fingerprint", "options", "inputs")))
            parts = [_part(**part) for part in content["parts"]]
            return cls(job, tuple(parts), content["finished"])
        except (KeyError, TypeError) as error:
            raise FormatError(f"{folder / NAME} is damaged: {error!r}") from error


def _part(file: str, rows: int, null_rows: int, sha256: str, end: list[int]) -> Part:
    """A part as the manifest has it.

    Raises:
        TypeError: it has something else.
    """
    if not is_plain_path(file):
        raise TypeError(f"{file!r} is no file within the folder")
    counts = [rows, null_rows, *end]
    if len(end) != 2 or not all(type(n) is int and 0 <= n < 2**63 for n in counts):
        raise TypeError(f"{file!r} can't have counts {counts}")
    return Part(file, rows, null_rows, sha256, Position(*end))


def _fingerprint(model: Path) -> str:
    """One checksum of a folder's model or index, whose descriptions hold the checksums of all their files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*.json") if path.name in ("model.json", "index.json")):
        digest.update(path.relative_to(model).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
