"""Steps of training: what they draw at random, how they are split, where they can start."""

from dataclasses import replace

import pytest
import torch

from elias_idx.data import labels_by_name
from elias_idx.errors import TrainingError
from elias_idx.train.batch import Batch, derived_seed
from elias_idx.train.clustering import ClusteringFeatures, cluster_labels
from elias_idx.train.encoders import build_encoder
from elias_idx.train.epoch import train_steps
from elias_idx.train.stage1 import start_stage1
from helpers_training import TINY, topic_texts


def fresh_trainee(config=TINY):
    torch.manual_seed(0)
    texts, names = topic_texts(num_topics=24, per_topic=6)
    labels, _ = labels_by_name(names)
    encoder = build_encoder(config, texts)
    clusters = cluster_labels(labels, ClusteringFeatures(encoder.sparse_features), 4, seed=0)
    return start_stage1(encoder, labels, clusters, config)


def state_of(trainee):
    return [*trainee.network.state_dict().values(), *trainee.encoder.state_dict().values()]


def same_state(one, other):
    return all(torch.equal(a, b) for a, b in zip(state_of(one), state_of(other), strict=True))


def test_parts_of_a_step_draw_what_the_whole_does():
    whole = Batch.whole(torch.arange(10, 17), seed=5)
    parts = list(whole.split(3))
    assert [part.rows.tolist() for part in parts] == [[10, 11, 12], [13, 14, 15], [16]]
    assert torch.equal(torch.cat([part.uniform(4, "beam") for part in parts]), whole.uniform(4, "beam"))
    assert not torch.equal(whole.uniform(4, "beam"), whole.uniform(4, "dropout"))
    assert not torch.equal(whole.uniform(4, "beam"), Batch.whole(whole.step_rows, seed=6).uniform(4, "beam"))


def test_seeds_tell_their_parts_apart():
    seeds = {derived_seed(*parts) for parts in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 12), (0, 1, 2, 0)]}
    assert len(seeds) == 5
    assert derived_seed(3, 4) == derived_seed(3, 4)


def test_the_losses_of_parts_add_up_and_so_do_their_gradients():
    one, other = fresh_trainee(), fresh_trainee()
    batch = Batch.whole(torch.arange(0, 96, 3), seed=1)
    loss = one.loss(batch)
    loss.backward()
    total = 0.0
    for part in batch.split(7):
        part_loss = other.loss(part)
        part_loss.backward()
        total += part_loss.item()
    assert total == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(other.network.clusters.weight.grad, one.network.clusters.weight.grad)
    for whole, parts in ((one.network.label_classifiers, other.network.label_classifiers),
                         (one.encoder.embeddings, other.encoder.embeddings)):  # fmt: skip
        for table in (whole, parts):
            table.begin_step(0.1)
            table.step()
        torch.testing.assert_close(parts.momentum, whole.momentum, rtol=1e-4, atol=1e-7)


def test_dropout_scales_what_it_keeps():
    trainee = fresh_trainee(replace(TINY, dropout=0.4))
    batch, embeddings = Batch.whole(torch.arange(100), seed=3), torch.ones(100, 50)
    found = trainee._dropped_out(embeddings, batch)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert (found == 0).float().mean() == pytest.approx(0.4, abs=0.03)
    assert torch.equal(found, trainee._dropped_out(embeddings, batch))


def test_an_epoch_can_start_in_its_middle():
    undisturbed, resumed = fresh_trainee(), fresh_trainee()
    losses = list(train_steps(undisturbed, undisturbed.optimizers(2, 1.0), seed=9))
    assert len(losses) == undisturbed.steps_per_epoch == 5
    first = resumed.optimizers(2, 1.0)
    steps = train_steps(resumed, first, seed=9)
    before = [next(steps), next(steps)]
    # Whatever is drawn in between.
    torch.rand(3)
    second = resumed.optimizers(2, 1.0)
    second.load_state(first.state())
    assert before + list(train_steps(resumed, second, seed=9, first_step=2)) == losses
    assert same_state(undisturbed, resumed)


def test_batches_are_accumulated_to_steps():
    config = replace(TINY, batch_size=12, accumulation_steps=3)
    one, other = fresh_trainee(config), fresh_trainee(replace(config, batch_size=36, accumulation_steps=1))
    assert one.steps_per_epoch == other.steps_per_epoch == 4
    losses = [list(train_steps(trainee, trainee.optimizers(1, 1.0), 0)) for trainee in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_loss_that_is_not_finite_is_an_error():
    trainee = fresh_trainee()
    with torch.no_grad():
        trainee.network.clusters.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="became nan in step 1"):
        next(train_steps(trainee, trainee.optimizers(1, 1.0), 0))
