"""The loss in log space against the definition in double precision."""

import pytest
import torch

from elias_idx.train.losses import path_loss, shortlist_loss


def definition(scores, logits, relevance):
    p = scores * torch.sigmoid(logits)
    return -(relevance * torch.log(p) + (1 - relevance) * torch.log1p(-p)).sum()


@pytest.mark.parametrize("relevance", [1.0, 0.0, 0.25])
def test_value_and_gradients_are_those_of_the_definition(relevance):
    scores, logits = torch.meshgrid(torch.linspace(0.01, 0.99, 20), torch.linspace(-40, 40, 81), indexing="ij")
    ours = [scores.clone().requires_grad_(), logits.clone().requires_grad_()]
    exact = [scores.double().requires_grad_(), logits.double().requires_grad_()]
    found = shortlist_loss(*ours, torch.full_like(scores, relevance))
    expected = definition(*exact, torch.full_like(exact[0], relevance))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    for single, double in zip(ours, exact, strict=True):
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("logit", [-200.0, -30.0, 0.0, 30.0, 200.0])
@pytest.mark.parametrize("score", [0.0, 1e-40, 1e-20, 0.5, 1.0])
@pytest.mark.parametrize("relevance", [1.0, 0.0, 0.5])
def test_extremes_stay_finite(logit, score, relevance):
    scores, logits = torch.tensor([score], requires_grad=True), torch.tensor([logit], requires_grad=True)
    loss = shortlist_loss(scores, logits, torch.tensor([relevance]))
    loss.backward()
    assert bool(loss.isfinite())
    assert loss.item() >= 0
    assert bool(scores.grad.isfinite())
    assert bool(logits.grad.isfinite())


def test_a_saturated_path_gives_plain_logistic_loss():
    logits, relevance = torch.tensor([-3.0, 0.5, 50.0]), torch.tensor([1.0, 0.0, 0.0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, relevance, reduction="sum")
    torch.testing.assert_close(shortlist_loss(torch.ones(3), logits, relevance), expected)


def test_path_loss_is_the_negative_log_likelihood():
    torch.testing.assert_close(path_loss(torch.tensor([0.5, 1.0])), torch.tensor(0.5).log().neg())
