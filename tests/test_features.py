"""Inputs as sparse vectors."""

import copy
import json
import math
import pickle
import re
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from elias_idx.errors import DataError, FormatError
from elias_idx.features import Block, GivenFeatures, TextFeatures, load_features
from elias_idx.files import load_tensors, save_tensors

TEXTS = [
    "acute viral hepatitis",
    "chronic viral hepatitis b",
    "fracture of the femur",
    "open fracture of the tibia",
]


BLOCKS = [
    Block("text", "word", (1, 1), 1),
    Block("text", "word", (2, 3), 2, weight=0.5),
    Block("text", "char", (3, 5), 2, weight=2.0),
    Block("first_line", "word", (1, 2), 1),
    Block("first_line", "char", (2, 2), 1, weight=0.3),
]


def ngrams(block, text):
    """A text's n-grams of a block, by the words of the documentation."""
    if block.field == "first_line":
        text = text.strip().splitlines()[0] if text.strip() else ""
    words = re.findall(r"\w+", text.lower())
    sequences = [[*words]] if block.kind == "word" else [f" {word} " for word in words]
    shortest, longest = block.ngrams
    for n in range(shortest, longest + 1):
        for sequence in sequences:
            yield from (tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1))


def oracle(blocks, train, texts):
    """tf-idf by plain counting; the columns of each block are in order of n-grams of its training texts."""
    parts = []
    for block in blocks:
        counts = Counter(gram for text in train for gram in set(ngrams(block, text)))
        known = [gram for gram, count in counts.items() if count >= block.min_texts]
        idf = {gram: 1 + math.log((1 + len(train)) / (1 + counts[gram])) for gram in known}
        part = np.zeros((len(texts), len(known)))
        for row, text in zip(part, texts, strict=True):
            found = Counter(ngrams(block, text))
            row[:] = [(1 + math.log(found[gram])) * idf[gram] if gram in found else 0 for gram in known]
        parts.append(block.weight * part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-30))
    joined = np.hstack(parts)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-30)


lines = st.text("ab c\nÄß_1.-", max_size=30)


def exact_oracle(features, texts):
    """The rows by the words of the documentation, in the float arithmetic that is the format's: bit for bit."""
    rows = []
    for text in texts:
        values, columns, first = [], [], 0
        for block, (symbols, keys, idf) in zip(features.blocks, features._fitted.parts(), strict=True):
            grams = [(symbol,) for symbol in symbols]
            columns_of = dict(zip(grams, range(len(grams)), strict=True)) if block.ngrams[0] == 1 else {}
            for n, own in enumerate(keys, 2):
                grams = [(*grams[key // len(symbols)], symbols[key % len(symbols)]) for key in own]
                if n >= block.ngrams[0]:
                    columns_of |= {gram: len(columns_of) + place for place, gram in enumerate(grams)}
            counts = Counter(columns_of[gram] for gram in map(tuple, ngrams(block, text)) if gram in columns_of)
            found = sorted(counts)
            tf = 1 + np.log([counts[column] for column in found]).astype(np.float32)
            values.append(to_length(tf * idf[found], block.weight))
            columns += [first + column for column in found]
            first += len(idf)
        rows.append((columns, to_length(np.concatenate(values), 1)))
    return rows


def to_length(values, length):
    squares = sum(float(value) ** 2 for value in values)
    return values * np.float32(length / math.sqrt(squares)) if squares else values


@settings(deadline=None)
@given(st.lists(lines, min_size=1, max_size=8), st.lists(lines, max_size=4))
def test_rows_are_exact(train, others):
    features = TextFeatures([Block("text", "word", (1, 1)), *BLOCKS])
    matrix = features.fit_transform(["a b c", *train])
    assert (matrix != features.transform(["a b c", *train], 1)).nnz == 0
    found = features.transform(others)
    for row, (columns, values) in enumerate(exact_oracle(features, others)):
        own = slice(*found.indptr[row : row + 2])
        assert found.indices[own].tolist() == columns
        assert found.data[own].tolist() == values.tolist()


@pytest.mark.parametrize(("kind", "lengths"), [("word", (1, 1)), ("word", (1, 3)), ("char", (2, 4))])
def test_features_are_those_of_scikit_learn(kind, lengths):
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["der", "Der", "hund", "wohnt", "im", "wald", "42"], 12)) for _ in range(200)]
    words = {"analyzer": "word", "token_pattern": r"\w+"} if kind == "word" else {"analyzer": "char_wb"}
    theirs = TfidfVectorizer(**words, ngram_range=lengths, min_df=3, sublinear_tf=True).fit(texts[:150])
    features = TextFeatures([Block("text", kind, lengths, 3)]).fit(texts[:150])
    ours, expected = features.transform(texts), theirs.transform(texts)
    assert ours.shape == expected.shape
    order = [theirs.vocabulary_[(" " if kind == "word" else "").join(gram)] for gram in known_ngrams(features)]
    assert ours.toarray() == pytest.approx(expected.toarray()[:, order], abs=1e-6)


def known_ngrams(features):
    """The n-grams of features of one block, by column."""
    (symbols, keys, _), shortest = features._fitted.parts()[0], features.blocks[0].ngrams[0]
    levels = [[(symbol,) for symbol in symbols]]
    for own in keys:
        levels.append([(*levels[-1][key // len(symbols)], symbols[key % len(symbols)]) for key in own])
    return [gram for level in levels[shortest - 1 :] for gram in level]


def test_many_texts_and_threads_give_the_same():
    rng = np.random.default_rng(5)
    texts = [" ".join(f"w{number}" for number in rng.zipf(1.3, 8) % 5000) for _ in range(20_000)]
    blocks = [Block("text", "word", (1, 2), 2), Block("text", "char", (2, 3), 2)]
    one, many = (TextFeatures(blocks).fit(texts, threads) for threads in (1, 3))
    for ours, theirs in zip(one._fitted.parts(), many._fitted.parts(), strict=True):
        assert ours[0] == theirs[0]
        assert all(map(np.array_equal, ours[1], theirs[1]))
        assert np.array_equal(ours[2], theirs[2])
    assert (one.transform(texts, 1) != many.transform(texts, 3)).nnz == 0
    words = Counter(gram for text in texts for gram in set(ngrams(blocks[0], text)))
    assert len(one._fitted.parts()[0][2]) == sum(count >= 2 for count in words.values())


@settings(deadline=None)
@given(
    st.lists(lines, min_size=1, max_size=8),
    st.lists(lines, max_size=4),
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5, unique=True),
)
def test_features_are_those_of_plain_counting(train, others, blocks):
    expected = oracle(blocks, train, train + others)
    features = TextFeatures(blocks)
    if not expected.shape[1]:
        with pytest.raises(DataError, match="no features"):
            features.fit_transform(train)
        return
    matrix = features.fit_transform(train)
    assert (matrix.dtype, matrix.indices.dtype) == (np.float32, np.int32)
    assert matrix.has_canonical_format
    assert abs(features.transform(train) - matrix).max() == 0
    found = features.transform(train + others).toarray()
    # The order of a block's columns is its own: products tell the rest.
    assert found.shape == expected.shape
    assert np.sort(found, axis=1) == pytest.approx(np.sort(expected, axis=1), abs=1e-5)
    assert found @ found.T == pytest.approx(expected @ expected.T, abs=1e-5)


def test_rows_have_unit_length_and_unknown_texts_none():
    features = TextFeatures(BLOCKS)
    matrix = features.fit_transform(TEXTS)
    assert np.asarray(matrix.multiply(matrix).sum(1)).ravel() == pytest.approx(np.ones(4), abs=1e-5)
    assert features.transform(["", "qqq"]).nnz == 0
    assert features.transform([]).shape == (0, features.num_features)


def test_saved_features_load_and_give_the_same(tmp_path):
    features = TextFeatures(BLOCKS)
    matrix = features.fit_transform(TEXTS)
    features.save(tmp_path)
    loaded = load_features(tmp_path)
    assert isinstance(loaded, TextFeatures)
    assert (loaded.blocks, loaded.num_features) == (features.blocks, features.num_features)
    assert abs(loaded.transform(TEXTS) - matrix).max() == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda features: pickle.loads(pickle.dumps(features))])
def test_copies_give_the_same(copied):
    features = TextFeatures(BLOCKS)
    assert copied(features).blocks == features.blocks
    matrix = features.fit_transform(TEXTS)
    assert (copied(features).transform(TEXTS) != matrix).nnz == 0


def test_rare_n_grams_are_left_out():
    every, frequent = (TextFeatures([Block("text", "word", (1, 1), least)]) for least in (1, 2))
    every.fit_transform(TEXTS)
    frequent.fit_transform(TEXTS)
    # viral, hepatitis, fracture, of, the stand in two texts each.
    assert (every.num_features, frequent.num_features) == (11, 5)


def test_marks_belong_to_the_words_of_any_script():
    words = ["हिन्दी", "ภาษาไทย", "cafe\N{COMBINING ACUTE ACCENT}s", "日本語", "한국어"]
    features = TextFeatures([Block("text", "word", (1, 1))])
    matrix = features.fit_transform([" ".join(words), *words])
    assert matrix.shape == (6, 5)
    assert np.diff(matrix.indptr).tolist() == [5, 1, 1, 1, 1, 1]


def test_texts_without_features_are_an_error():
    with pytest.raises(DataError, match="no features"):
        TextFeatures(BLOCKS).fit_transform(["", "  "])


@pytest.mark.parametrize("texts", [["red apple", "green tree"], ["one text"]])
def test_a_block_whose_n_grams_are_too_rare_is_empty(tmp_path, texts):
    features = TextFeatures([Block("text", "word", (1, 1)), Block("text", "char", (3, 5), 2)])
    matrix = features.fit_transform(texts)
    assert matrix.shape[1] == features.num_features == len({word for text in texts for word in text.split()})
    features.save(tmp_path)
    assert abs(load_features(tmp_path).transform(texts) - matrix).max() == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("idf", lambda idf: idf[1:]),
        ("idf", lambda idf: idf * np.nan),
        ("1.2", lambda keys: keys[::-1].copy()),
        ("1.2", lambda keys: keys - keys.max() - 1),
        ("1.2", lambda keys: keys + 10**6),
        ("2.4", lambda keys: keys.astype(np.float64)),
        ("2.4", lambda keys: keys[None]),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, change):
    features = TextFeatures(BLOCKS)
    features.fit_transform(TEXTS)
    features.save(tmp_path)
    path = tmp_path / "features.safetensors"
    tensors = load_tensors(path)
    save_tensors(path, {**tensors, name: change(tensors[name])})
    with pytest.raises(FormatError, match="idf must be finite" if name == "idf" else f"{name} must be"):
        load_features(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda _: {"blocks": []},
        lambda _: {"blocks": [5]},
        lambda _: {"blocks": 5},
        *(
            lambda content, name=name, value=value: {"blocks": [{**content["blocks"][0], name: value}]}
            for name, value in [
                ("field", "title"),
                ("kind", None),
                ("ngrams", [1]),
                ("ngrams", [2, 1]),
                ("ngrams", ["1", 2]),
                ("weight", "heavy"),
                ("weight", math.nan),
                ("symbols", 5),
                ("symbols", [5]),
                ("weight", 10**400),
                ("min_texts", -1),
                ("min_texts", 2**70),
                ("unknown", 1),
            ]
        ),
    ],
)
def test_damaged_descriptions_are_refused(tmp_path, change):
    features = TextFeatures(BLOCKS)
    features.fit_transform(TEXTS)
    features.save(tmp_path)
    path = tmp_path / "features.json"
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(FormatError, match=r"features\.json is damaged"):
        load_features(tmp_path)


@pytest.mark.parametrize(("place", "symbols"), [(0, ["a", "a"]), (2, ["a", "a"]), (2, ["a", "bc"]), (2, ["a", ""])])
def test_symbols_that_are_none_are_refused(tmp_path, place, symbols):
    features = TextFeatures(BLOCKS)
    features.fit(TEXTS)
    features.save(tmp_path)
    path = tmp_path / "features.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["blocks"][place]["symbols"][:2] = symbols
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FormatError, match=f"symbols of block {place} must be distinct"):
        load_features(tmp_path)


def test_a_tensor_that_is_missing_is_named(tmp_path):
    features = TextFeatures(BLOCKS).fit(TEXTS)
    features.save(tmp_path)
    path = tmp_path / "features.safetensors"
    save_tensors(path, {name: tensor for name, tensor in load_tensors(path).items() if name != "1.3"})
    with pytest.raises(FormatError, match=r"1\.3"):
        load_features(tmp_path)


GIVEN = sp.csr_matrix(np.array([[3, 0, 4], [0, 0, 0], [0, 0.5, 0]]))


def test_given_features_get_unit_length(tmp_path):
    features = GivenFeatures(3)
    matrix = features.fit_transform(GIVEN)
    assert matrix.dtype == np.float32
    assert matrix.toarray() == pytest.approx(np.array([[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]]))
    assert GIVEN[0, 0] == 3
    features.save(tmp_path)
    loaded = load_features(tmp_path)
    assert isinstance(loaded, GivenFeatures)
    assert (loaded.transform(GIVEN) != matrix).nnz == 0


def test_columns_of_a_row_may_come_in_any_order():
    shuffled = sp.csr_matrix((np.array([4.0, 3.0]), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert GivenFeatures(3).transform(shuffled).indices.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (TEXTS, r"takes sparse features, a CSR matrix \[N, 3\]"),
        (np.ones((2, 3)), "takes sparse features"),
        (GIVEN[:, :2], "takes 3 features a row, got 2"),
        (sp.csr_matrix([[0, 1, 0], [0, 0, np.inf]]), "row 1 are not all finite"),
    ],
)
def test_inputs_of_another_kind_are_refused(inputs, message):
    with pytest.raises(DataError, match=message):
        GivenFeatures(3).transform(inputs)


def test_text_features_take_no_matrix():
    features = TextFeatures(BLOCKS)
    features.fit_transform(TEXTS)
    with pytest.raises(DataError, match=r"takes texts, got an array of float64 of shape \[3, 3\]"):
        features.transform(GIVEN)
