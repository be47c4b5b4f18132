"""Fuzzes the Python readers of data sets, guided by coverage: `python fuzz/readers.py READER [options of libFuzzer]`.

Needs the package atheris. What is tried, and by which reader, `tests/helpers_fuzz.py` says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

with atheris.instrument_imports(include=["elias_idx.data", "elias_idx.score"]):
    from helpers_fuzz import CORPUS, READERS, read


def main() -> None:
    """Fuzzes the reader that the first argument names, from its corpus on; new inputs are added there."""
    program, name, *options = sys.argv
    if name not in READERS:
        sys.exit(f"READER must be one of {', '.join(READERS)}")
    # In memory where the system has such a folder: each input is a file.
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:

        def try_input(content: bytes) -> None:
            read(name, content, Path(folder))

        atheris.Setup([program, *options, str(CORPUS / name)], try_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
