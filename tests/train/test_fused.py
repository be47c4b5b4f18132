"""The fused step against autograd over the same computation in torch, in double precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from elias_idx.train import fused, losses
from elias_idx.train.losses import LossSettings
from elias_idx.train.network import Adjacency, EliasNetwork
from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowTable, added_up

NUM_QUERIES, NUM_CLUSTERS, NUM_LABELS = 24, 12, 90
SETTINGS = LossSettings(shortlist_size=25, path_loss_weight=1.3, divisor=NUM_QUERIES, skip_below=0.0)


class Problem:
    """A random network and batch; the scale of its cluster logits decides how many scores reach 1."""

    def __init__(self, seed, *, learned, dim=19, sharpness=2.0, beta=9.0, dtype=torch.float64, levels=None, **options):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        if learned:
            sizes = rng.integers(0, 40, NUM_CLUSTERS)
            rows = [rng.choice(NUM_LABELS - 5, size, replace=False) for size in sizes]
            logits = [rng.normal(size=size).astype(np.float32) for size in sizes]
            if levels is not None:
                logits = [np.round(row * levels) / levels for row in logits]
        else:
            rows, logits = np.array_split(rng.permutation(NUM_LABELS - 5), NUM_CLUSTERS), None
        adjacency = Adjacency(rows, NUM_LABELS, logits, beta)
        self.network = EliasNetwork(dim, adjacency, alpha=3.0, label_bias=-0.5, **options)
        if dtype == torch.float64:
            self.network.double()
        with torch.no_grad():
            self.network.label_classifiers.weight.normal_(std=0.6)
            self.network.label_classifiers.bias.normal_()
        self.embeddings = torch.randn(NUM_QUERIES, dim, dtype=dtype)
        self.cluster_logits = sharpness * torch.randn(NUM_QUERIES, NUM_CLUSTERS, dtype=dtype)
        if levels is not None:
            self.cluster_logits = (self.cluster_logits * levels).round() / levels
        self.beam = torch.from_numpy(np.argsort(rng.random((NUM_QUERIES, NUM_CLUSTERS)), axis=1)[:, :5].copy())
        self.beam[rng.random(self.beam.shape) < 0.2] = -1
        self.beam[3] = -1
        counts = rng.integers(0, 6, NUM_QUERIES)
        labels = [np.sort(rng.choice(NUM_LABELS, count, replace=False)) for count in counts]
        relevance = rng.choice([1.0, 1.0, 0.3], counts.sum()).astype(np.float32)
        self.positives = Ragged(
            torch.tensor([0, *np.cumsum(counts)]),
            torch.from_numpy(np.concatenate(labels)),
            NUM_LABELS,
            torch.from_numpy(relevance),
        )

    def gradients(self, loss, settings):
        """The loss, and gradients by embeddings, cluster logits, the label projection, and the tables' rows."""
        embeddings = self.embeddings.clone().requires_grad_()
        logits = self.cluster_logits.clone().requires_grad_()
        scores = (self.network.alpha * logits.softmax(1)).clamp(max=1.0)
        projected = self.network.project(embeddings)
        value = loss(self.network, projected, scores, self.beam, self.positives, settings)
        value.backward()
        tables = [self.network.label_classifiers, self.network.adjacency.logits]
        found = [value.detach(), embeddings.grad, logits.grad]
        if (projection := self.network.label_projection) is not None:
            found.append(projection.weight.grad.clone())
            projection.zero_grad()
        for table in filter(None, tables):
            [gradient] = table.gradients
            table.gradients = []
            for values in (gradient.weight, gradient.bias):
                if values is not None:
                    dense = values.new_zeros(len(table.weight), *values.shape[1:])
                    found.append(dense.index_add(0, gradient.rows, values))
        return [tensor.double() for tensor in found]

    def single(self):
        """The same problem for the fused step, in single precision."""
        self.network.float()
        self.embeddings, self.cluster_logits = self.embeddings.float(), self.cluster_logits.float()
        return self


def check_agreement(problem, settings=SETTINGS):
    expected = problem.gradients(losses.label_loss, settings)
    found = problem.single().gradients(fused.label_loss, settings)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-6)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("learned", [False, True])
def test_loss_and_gradients_are_those_of_autograd(learned, seed):
    found = check_agreement(Problem(seed, learned=learned))
    assert all(bool(gradient.any()) for gradient in found)


@pytest.mark.parametrize("dim", [1, 16, 33, 128])
def test_any_width_of_rows(dim):
    check_agreement(Problem(5, learned=True, dim=dim))


@pytest.mark.parametrize("learned", [False, True])
def test_a_label_projection_learns_too(learned):
    found = check_agreement(Problem(5, learned=learned, label_dim=7))
    assert found[3].shape == (7, 19)
    assert bool(found[3].any())


@pytest.mark.parametrize("size", [1, 3, 60, 1000])
@pytest.mark.parametrize("learned", [False, True])
def test_any_size_of_the_shortlist(size, learned):
    check_agreement(Problem(6, learned=learned), replace(SETTINGS, shortlist_size=size))


def test_scores_at_the_clamp_pass_no_gradient():
    problem = Problem(7, learned=True, sharpness=6.0, beta=60.0)
    scores = (3.0 * problem.cluster_logits.softmax(1)).clamp(max=1.0)
    assert (scores == 1).any()
    assert (problem.network.adjacency.weights() == 1).any()
    check_agreement(problem)


@pytest.mark.parametrize("seed", range(3))
def test_ties_go_to_the_smaller_label(seed):
    # Few distinct scores: many labels tie where the shortlist ends.
    check_agreement(Problem(seed, learned=False, levels=1), replace(SETTINGS, shortlist_size=10, path_loss_weight=0.0))


def test_skipped_pairs_add_to_the_loss_alone():
    settings = replace(SETTINGS, skip_below=0.01)
    problem = Problem(8, learned=True)
    skipped = check_agreement(problem, settings)
    everything = problem.gradients(fused.label_loss, SETTINGS)
    assert skipped[0] == everything[0]
    assert not torch.equal(skipped[1], everything[1])


def test_a_batch_without_labels_and_one_without_clusters():
    problem = Problem(9, learned=True)
    nothing = torch.zeros(NUM_QUERIES + 1, dtype=torch.int64)
    problem.positives = Ragged(nothing, nothing[:0], NUM_LABELS, torch.zeros(0))
    check_agreement(problem)
    problem.beam[:] = -1
    settings = replace(SETTINGS, skip_below=0.0)
    embeddings = problem.embeddings.clone().requires_grad_()
    scores = torch.rand(NUM_QUERIES, NUM_CLUSTERS)
    loss = fused.label_loss(problem.network, embeddings, scores, problem.beam, problem.positives, settings)
    loss.backward()
    assert loss == 0
    assert not embeddings.grad.any()


@pytest.mark.parametrize("label_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("learned", [False, True])
def test_an_immediate_update_is_that_by_the_gradient(learned, label_dtype):
    one, other = (Problem(10, learned=learned, dtype=torch.float32, label_dtype=label_dtype) for _ in range(2))
    for _ in range(3):
        for problem, immediate in ((one, True), (other, False)):
            tables = [problem.network.label_classifiers, problem.network.adjacency.logits]
            tables = [table for table in tables if table is not None]
            for table in tables:
                table.begin_step(0.1, immediate=immediate)
            scores = (3.0 * problem.cluster_logits.softmax(1)).clamp(max=1.0)
            embeddings = problem.embeddings.clone().requires_grad_()
            fused.label_loss(problem.network, embeddings, scores, problem.beam, problem.positives, SETTINGS).backward()
            assert all(bool(table.gradients) != immediate for table in tables)
            for table in tables:
                table.step()
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


@pytest.mark.parametrize("quiet_first", [False, True])
def test_a_part_of_a_batch_whose_pairs_are_all_skipped_adds_nothing(quiet_first):
    problem = Problem(15, learned=True, dtype=torch.float32)
    table = problem.network.label_classifiers
    for quiet in (quiet_first, not quiet_first):
        settings = replace(SETTINGS, skip_below=10.0 if quiet else 0.0)
        scores = problem.cluster_logits.softmax(1).requires_grad_()
        arguments = problem.network, problem.embeddings, scores, problem.beam, problem.positives, settings
        fused.label_loss(*arguments).backward()
    alone = table.gradients[1 if quiet_first else 0]
    assert sorted(len(gradient.rows) for gradient in table.gradients) == [0, len(alone.rows)]
    total = added_up(table.gradients)
    assert torch.equal(total.rows, alone.rows)
    assert torch.equal(total.weight, alone.weight)
    assert torch.equal(total.bias, alone.bias)


def test_without_gradients_nothing_is_updated():
    problem = Problem(11, learned=True, dtype=torch.float32)
    table = problem.network.label_classifiers
    table.begin_step(0.1, immediate=True)
    before = {name: value.clone() for name, value in problem.network.state_dict().items()}
    scores = torch.rand(NUM_QUERIES, NUM_CLUSTERS)
    arguments = problem.network, problem.embeddings, scores, problem.beam, problem.positives, SETTINGS
    with torch.no_grad():
        loss = fused.label_loss(*arguments)
        torch.testing.assert_close(loss, losses.label_loss(*arguments))
    assert all(torch.equal(value, before[name]) for name, value in problem.network.state_dict().items())
    assert not table.gradients


def test_the_number_of_threads_changes_no_bit():
    # Large enough for several parts of the labels.
    rng = np.random.default_rng(12)
    rows = [rng.choice(3000, 700, replace=False) for _ in range(30)]
    adjacency = Adjacency(rows, 3000, [rng.normal(size=700).astype(np.float32) for _ in rows], 300.0)
    network = EliasNetwork(24, adjacency, alpha=5.0, label_bias=-2.0)
    torch.manual_seed(12)
    network.label_classifiers.weight.data.normal_()
    embeddings, scores = torch.randn(128, 24), torch.rand(128, 30).softmax(1)
    beam = scores.topk(8, dim=1).indices
    labels = Ragged(torch.arange(129), torch.randint(3000, (128,)), 3000, torch.ones(128))
    settings = LossSettings(400, 1.0, 128, 0.0)
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            leaves = embeddings.clone().requires_grad_(), scores.clone().requires_grad_()
            loss = fused.label_loss(network, *leaves, beam, labels, settings)
            loss.backward()
            gradients = [table.gradients.pop() for table in (network.label_classifiers, adjacency.logits)]
            results.append([loss, *(leaf.grad for leaf in leaves), *(one.weight for one in gradients)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_scores_that_are_not_numbers_make_the_loss_one_that_is_not():
    problem = Problem(13, learned=False, dtype=torch.float32)
    scores = torch.full((NUM_QUERIES, NUM_CLUSTERS), torch.nan)
    arguments = problem.network, problem.embeddings, scores, problem.beam, problem.positives, SETTINGS
    assert fused.label_loss(*arguments).isnan()
    problem.network.label_classifiers.weight.data[:] = torch.inf
    arguments = problem.network, problem.embeddings, torch.rand_like(scores), *arguments[3:]
    assert not fused.label_loss(*arguments).isfinite()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_of_the_adjacency_that_are_not_finite_make_the_loss_not_a_number(value):
    problem = Problem(13, learned=True, dtype=torch.float32)
    cluster = int(problem.network.adjacency.lengths.argmax())
    problem.beam[0, 0] = cluster
    table = problem.network.adjacency.logits
    table.begin_step(0.1, immediate=True)
    problem.network.label_classifiers.begin_step(0.1, immediate=True)
    table.weight.data[cluster, 0] = value
    before = {name: tensor.clone() for name, tensor in problem.network.state_dict().items()}
    scores = torch.rand(NUM_QUERIES, NUM_CLUSTERS).requires_grad_()
    arguments = problem.network, problem.embeddings, scores, problem.beam, problem.positives, SETTINGS
    assert fused.label_loss(*arguments).isnan()
    for name, tensor in problem.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)
    # Padding is never read.
    table.weight.data.masked_fill_(problem.network.adjacency.present, 0.0)
    table.weight.data.masked_fill_(~problem.network.adjacency.present, value)
    assert fused.label_loss(*arguments).isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.beam.fill_(NUM_CLUSTERS), "the beam holds 12, which must be below 12"),
        (lambda p: p.beam.fill_(-2), "the beam holds -2"),
        (lambda p: p.positives.indices.fill_(NUM_LABELS), "the labels holds 90, which must be below 90"),
        (lambda p: p.positives.values.fill_(0.0), "relevances must be above 0"),
        (lambda p: p.positives.values.fill_(1.5), "at most 1"),
        (lambda p: p.positives.indptr[1:].fill_(7), "offsets must rise from 0"),
        (lambda p: p.network.adjacency.labels.fill_(-1), "the adjacency holds -1"),
        (lambda p: p.network.adjacency.lengths.fill_(1000), "lengths must lie between 0"),
        (lambda p: p.network.adjacency.label_slots.fill_(10**6), "the labels' slots holds 1000000"),
        (lambda p: p.network.adjacency.label_slots.copy_(p.network.adjacency.label_slots.flip(0)), "which isn't label"),
        (lambda p: p.network.adjacency.lengths.fill_(0), "which isn't label"),
        (lambda p: p.cluster_logits.fill_(1.5), "cluster scores must lie between 0 and 1"),
        (lambda p: setattr(p, "embeddings", p.embeddings[:, :-1]), "embeddings must have dim 19, got 18"),
        (lambda p: setattr(p, "embeddings", p.embeddings[:-1]), "cluster_scores must have 276 values, got 288"),
    ],
)
def test_arrays_that_dont_fit_are_an_error(change, message):
    problem = Problem(14, learned=True, dtype=torch.float32)
    problem.cluster_logits = problem.cluster_logits.softmax(1)
    change(problem)
    arguments = problem.network, problem.embeddings, problem.cluster_logits, problem.beam, problem.positives, SETTINGS
    with pytest.raises(ValueError, match=message):
        fused.label_loss(*arguments)


def random_bags(seed, num_rows=200):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, 40)
    indices = [rng.choice(num_rows, count, replace=False) for count in counts]
    values = rng.normal(size=counts.sum()).astype(np.float32)
    indptr = torch.tensor([0, *np.cumsum(counts)])
    return Ragged(indptr, torch.from_numpy(np.concatenate(indices)), num_rows, torch.from_numpy(values))


@pytest.mark.parametrize("dim", [1, 20, 64])
def test_bags_and_their_gradients_are_those_of_a_dense_product(dim):
    bags, table = random_bags(0), RowTable(torch.randn(200, dim))
    result = fused.bag_product(bags, table)
    dense = torch.zeros(40, 200).index_put((bags.owners(), bags.indices), bags.values)
    torch.testing.assert_close(result, dense @ table.weight, rtol=1e-4, atol=1e-5)
    factor = torch.randn_like(result)
    (result * factor).sum().backward()
    [gradient] = table.gradients
    assert gradient.rows.tolist() == bags.indices.unique().tolist()
    torch.testing.assert_close(gradient.weight, (dense.t() @ factor)[gradient.rows], rtol=1e-4, atol=1e-5)


def test_bags_update_rows_as_their_gradients_would():
    start = torch.randn(200, 12)
    one, other = RowTable(start.clone()), RowTable(start.clone())
    for step in range(3):
        for table, immediate in ((one, True), (other, False)):
            table.begin_step(0.1, immediate=immediate)
            fused.bag_product(random_bags(step), table).square().sum().backward()
            table.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_bags_are_of_float32_rows():
    with pytest.raises(TypeError, match="float32"):
        fused.bag_product(random_bags(2), RowTable(torch.zeros(200, 4, dtype=torch.float16)))


def test_bags_of_rows_that_arent_there_are_an_error():
    with pytest.raises(ValueError, match="a bag holds 199, which must be below 150"):
        fused.bag_product(replace(random_bags(1), indices=torch.full_like(random_bags(1).indices, 199)),
                          RowTable(torch.zeros(150, 4)))  # fmt: skip
