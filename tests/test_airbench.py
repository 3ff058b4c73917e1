"""`AirbenchNet`: what is whitened is white, what begins as the identity is, and its size is that of the paper."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from touchstone.nets import AirbenchNet


def correlated(num: int) -> Tensor:
    """Images whose neighbours are alike, as those of the world: noise, blurred."""
    torch.manual_seed(0)
    return F.avg_pool2d(torch.rand(num, 3, 36, 36), 5, 1)


def test_the_first_training_batch_makes_the_first_layer_whiten_and_later_ones_leave_it() -> None:
    net, x = AirbenchNet(widths=(4, 4, 4)).train(), correlated(64)
    net(x)
    answers = net.whiten(x).permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(answers[:12], -answers[12:])
    second_moment = (answers[:12] @ answers[:12].T / answers.shape[1]).detach()
    variances = second_moment.diagonal()
    # Divided by the root of the variance and the paper's 5e-4: one where it is large against that.
    assert float(variances.max()) == pytest.approx(1, abs=1e-3)
    assert float((second_moment - variances.diag()).abs().max()) < 1e-3
    kept = net.whiten.weight.clone()
    net(torch.rand(8, 3, 32, 32))
    assert torch.equal(net.whiten.weight, kept)
    other = AirbenchNet(widths=(4, 4, 4)).train()
    other.load_state_dict(net.state_dict())
    other(torch.rand(8, 3, 32, 32))
    assert torch.equal(other.whiten.weight, kept)


@pytest.mark.parametrize("is_training", [True, False])
def test_images_of_9_pixels_a_side_are_large_enough(is_training: bool) -> None:
    net = AirbenchNet(widths=(4, 4, 4)).train(is_training)
    assert net(torch.rand(8, 3, 9, 9)).shape == (8, 10)
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.rand(8, 3, 8, 8))


def test_processes_whiten_by_the_patches_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated(64)
    alone = AirbenchNet(widths=(4, 4, 4)).train()
    alone(x)
    sums: list[Tensor] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: sums.append(tensor.clone()))
    AirbenchNet(widths=(4, 4, 4)).train()(x[40:])  # what the other process gives
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(sums[0]))
    net = AirbenchNet(widths=(4, 4, 4)).train()
    net(x[:40])
    # What whitens is known but for a rotation; its square is the inverse of the covariance.
    inverse, expected = (n.whiten.weight[:12].flatten(1).T @ n.whiten.weight[:12].flatten(1) for n in (net, alone))
    torch.testing.assert_close(inverse, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    mine = AirbenchNet(widths=(4, 4, 4)).train()
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: None)
    mine(x[:1])
    other = mine.whiten.weight[:12].flatten(1).T @ mine.whiten.weight[:12].flatten(1)
    assert float((other - expected).abs().max()) > 0.05 * float(expected.abs().max())


def test_parameters_are_as_many_as_the_paper_s_and_a_group_begins_as_the_identity() -> None:
    net = AirbenchNet()
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    biases = 2 * (64 + 256 + 256)
    assert sum(p.numel() for p in net.parameters()) == 24 * 12 + 24 + convolutions + biases + 10 * 256
    first = net.groups[0][0]
    x = torch.rand(2, 24, 9, 9)
    torch.testing.assert_close(first(x)[:, :24], x)


def test_in_evaluation_an_image_and_its_mirror_image_have_the_same_logits() -> None:
    net, x = AirbenchNet(widths=(8, 8, 8)), correlated(8)
    net(x)
    net.eval()
    torch.testing.assert_close(net(x), net(x.flip(3)))
    net.mirror = False
    assert not torch.allclose(net(x), net(x.flip(3)), atol=1e-4)


def test_a_bias_moves_by_sixty_four_times_the_learning_rate() -> None:
    net, x = AirbenchNet(widths=(4, 4, 4)).double().train(), correlated(8).double()
    net(x)
    norm = net.groups[0][2]
    before, seen = copy.deepcopy(norm), torch.rand(8, 4, 15, 15, dtype=torch.float64)
    (slope,) = torch.autograd.grad((norm(seen) ** 3).sum(), norm.bias)
    with torch.no_grad():
        norm.bias -= 1e-9 * slope
    shift = (norm(seen) - before(seen)).mean((0, 2, 3))
    of_output = (3 * before(seen) ** 2).sum((0, 2, 3))
    torch.testing.assert_close(shift, -64e-9 * of_output, rtol=1e-4, atol=0)


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AirbenchNet\(widths=...\) must be three numbers >= 1, got \(4, 0, 4\)"):
        AirbenchNet(widths=(4, 0, 4))
    with pytest.raises(ValueError, match=r"AirbenchNet\(scale=...\) must be > 0 and finite, got 0"):
        AirbenchNet(scale=0)
