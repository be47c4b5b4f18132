"""The demo's data, from a small tabular list and from the installed one."""

import hashlib

import pytest

from elias_idx.demo import icd10cm

XML = b"""<ICD10CM.tabular><chapter>
  <includes><note>a note of a chapter (A01)</note></includes>
  <section>
    <excludes1><note>a note of a section (A01)</note></excludes1>
    <diag><name>A01</name><desc>Typhoid Fevers </desc>
      <includes><note>Own note</note></includes>
      <excludes1><note>Leads elsewhere (B99.1) </note><note>Several codes (B99-)</note></excludes1>
      <diag><name>A01.0</name><desc>Typhoid fever</desc>
        <inclusionTerm><note>Enteric fever</note><note>own note</note></inclusionTerm>
        <excludes2><note>No such code (Z99.9)</note></excludes2>
      </diag>
    </diag>
  </section>
  <section><diag><name>B99</name><desc>Other</desc>
    <diag><name>B99.1</name><desc>Other specified</desc></diag></diag></section>
</chapter></ICD10CM.tabular>"""


def test_texts_lead_to_their_codes_and_all_ancestors():
    data = icd10cm.parse(XML)
    found = {row.text: row.labels for row in data.train + data.test}
    assert found == {
        "typhoid fevers": ["A01"],
        "typhoid fever": ["A01", "A01.0"],
        "enteric fever": ["A01", "A01.0"],
        # A note of two codes has the labels of both.
        "own note": ["A01", "A01.0"],
        # A code in parentheses names another code; a range or an unknown code names none.
        "leads elsewhere": ["B99", "B99.1"],
        "other": ["B99"],
        "other specified": ["B99", "B99.1"],
    }
    assert data.descriptions["A01"] == "Typhoid Fevers"


def bucket(text):
    return int(hashlib.md5(text.encode()).hexdigest(), 16) % 10


@pytest.fixture(scope="module")
def full():
    pytest.importorskip("simple_icd_10_cm")
    return icd10cm.load()


def test_the_installed_list_gives_the_known_numbers(full):
    assert (len(full.train), len(full.test)) == (58_358, 2_995)
    assert len({label for row in full.train for label in row.labels}) == len(full.descriptions) == 46_881
    assert sum(len(row.labels) for row in full.train) / len(full.train) == pytest.approx(3.02, abs=0.005)


def test_descriptions_are_training_texts_and_the_rest_is_split_by_hash(full):
    described = {description.lower() for description in full.descriptions.values()}
    assert not described & {row.text for row in full.test}
    assert all(bucket(row.text) < 2 for row in full.test)
    assert all(row.text in described or bucket(row.text) >= 2 for row in full.train)


def test_dev_rows_come_from_the_training_rows_and_resemble_the_test(full):
    fit, dev = full.split_dev()
    described = {description.lower() for description in full.descriptions.values()}
    assert len(fit) + len(dev) == len(full.train)
    assert not {row.text for row in fit} & {row.text for row in dev}
    assert all(row.text not in described and bucket(row.text) in (2, 3) for row in dev)
