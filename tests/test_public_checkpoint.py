"""Published weights are read as their makers meant them, and no code with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from touchstone.nets.cifar_resnet import CifarResNet
from touchstone.nets.public_checkpoint import PublicCheckpoint
from touchstone.nets.wide_resnet import WideResNet

from . import robustbench_nets
from .public_models import MEAN, STD, behind, small
from .robustness_library import attacker_model, imported

BEST, LATEST = ("checkpoint.pt.best", True), ("checkpoint.pt.latest", False)


def shaken(net: nn.Module) -> nn.Module:
    """With the running statistics of pictures, and normalizations that are not those of a new net."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 32, 32))
    return net.eval()


def torchvision_resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None)


@pytest.mark.parametrize(
    ("theirs", "mine", "side", "name", "parallel"),
    [
        (lambda: imported("cifar_models").resnet18(num_classes=10), lambda: CifarResNet(18), 32, *BEST),
        (lambda: imported("cifar_models").resnet18(num_classes=10), lambda: CifarResNet(18), 32, *LATEST),
        (lambda: imported("cifar_models").resnet50(num_classes=10), lambda: CifarResNet(50), 32, *BEST),
        (lambda: imported("imagenet_models").resnet18(), torchvision_resnet, 64, *LATEST),
    ],
    ids=["cifar resnet18, best", "cifar resnet18, latest", "cifar resnet50, best", "imagenet resnet18, latest"],
)
def test_a_checkpoint_of_robustness_has_the_logits_of_its_own_model(
    tmp_path: Path, theirs: Any, mine: Any, side: int, name: str, parallel: bool
) -> None:
    """Built, wrapped and saved as the library does it, then read here."""
    import dill

    torch.manual_seed(0)
    model = attacker_model(shaken(theirs()), MEAN, STD).eval()
    saved = {f"module.{k}": v for k, v in model.state_dict().items()} if parallel else model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50)
    whole = {
        "model": saved, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "epoch": 3, "amp": None, "nat_prec1": torch.tensor(0.9), "adv_prec1": -1,
    }  # fmt: skip
    torch.save(whole, tmp_path / name, pickle_module=dill)
    net = PublicCheckpoint(mine(), str(tmp_path / name)).eval()
    x = torch.rand(3, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(net(x), model(x)[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrap", "has_normalization"),
    [
        (lambda state: state, False),
        (lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}, False),
        (lambda state: {"epoch": 9, "model_state_dict": state}, False),
        (lambda state: behind("1.", state, **{"0.mean": MEAN, "0.std": STD}), True),
        (lambda state: {**state, "mu": MEAN.view(1, 3, 1, 1), "sigma": STD.view(1, 3, 1, 1)}, True),
        (lambda state: {k: v for k, v in state.items() if "num_batches" not in k}, False),
    ],
    ids=[
        "plain",
        "behind state_dict and module",
        "behind model_state_dict",
        "in a Sequential",
        "with mu and sigma",
        "without counters",
    ],
)
def test_state_dicts_of_robustbench(tmp_path: Path, wrap: Any, has_normalization: bool) -> None:
    source, x = shaken(CifarResNet(18)), torch.rand(2, 3, 32, 32)
    torch.save(wrap(source.state_dict()), tmp_path / "a.pt")
    net = PublicCheckpoint(CifarResNet(18), str(tmp_path / "a.pt")).eval()
    given = PublicCheckpoint(CifarResNet(18), str(tmp_path / "a.pt"), mean=MEAN.tolist(), std=STD.tolist()).eval()
    with torch.no_grad():
        normalized = source((x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))
        assert torch.allclose(net(x), normalized if has_normalization else source(x), atol=1e-5)
        assert torch.allclose(given(x), normalized, atol=1e-5)


@pytest.mark.parametrize("sub_block1", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "parallel"])
def test_a_file_of_robustbench_has_the_logits_of_its_own_net(
    tmp_path: Path, sub_block1: bool, normalized: bool, wrap: str
) -> None:
    """Saved from the code of its papers, which shares nothing with that here; a block that no forward uses with it."""
    theirs = shaken(robustbench_nets.WideResNet(16, 2, sub_block1=sub_block1, normalized=normalized))
    state = theirs.state_dict()
    if wrap == "parallel":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save(state if wrap == "plain" else {"state_dict": state, "epoch": 199}, tmp_path / "a.pt")
    net, x = PublicCheckpoint(WideResNet(16, 2), str(tmp_path / "a.pt")).eval(), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert float(theirs(x).std(0).min()) > 1e-3  # the pictures count
        assert torch.allclose(net(x), theirs(x), atol=1e-5)


class WritesAFile:
    """What a malicious pickle does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    torch.save({"model": {"a": torch.zeros(1)}, "extra": WritesAFile(proof)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"holds more than weights.*convert it"):
        PublicCheckpoint(CifarResNet(18), str(tmp_path / "a.pt"))
    assert not proof.exists()
    torch.load(tmp_path / "a.pt", weights_only=False)  # it would have
    assert proof.exists()


@pytest.mark.parametrize(
    "more",
    [
        {"normalize.mu": MEAN, "normalize.sigma": STD},
        {"normalizer.mean": MEAN, "normalizer.std": STD},
        {"normalize.mean": MEAN.view(1, 3, 1, 1), "normalize.std": STD.view(1, 3, 1, 1)},
        {"normalizer.new_mean": MEAN, "normalizer.new_std": STD, "attacker.model.weight": torch.ones(2)},
    ],
)
def test_a_normalization_beside_the_model_is_found(tmp_path: Path, more: dict[str, Tensor]) -> None:
    source, x = nn.Conv2d(3, 2, 1), torch.rand(2, 3, 4, 4)
    torch.save(behind("model.", source.state_dict(), **more), tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Conv2d(3, 2, 1), str(tmp_path / "a.pt"))
    with torch.no_grad():
        assert torch.allclose(net(x), source((x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)), atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [([0.5] * 3, [0.2] * 3), ([0, 0, 0], [1, 1, 1])])
def test_a_normalization_that_takes_the_place_of_that_in_the_file_is_said(
    tmp_path: Path, mean: list[float], std: list[float]
) -> None:
    path = str(tmp_path / "a.pt")
    torch.save({**nn.Conv2d(3, 2, 1).state_dict(), "mu": MEAN, "sigma": STD}, path)
    with pytest.warns(UserWarning, match=r"holds a normalization, by mean \[0.4914, .*takes its place"):
        net = PublicCheckpoint(nn.Conv2d(3, 2, 1), path, mean=mean, std=std)
    assert net.normalize.mean.flatten().tolist() == mean
    assert net.double()(torch.ones(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
    PublicCheckpoint(nn.Conv2d(3, 2, 1), path, mean=MEAN.tolist(), std=STD.tolist())  # the same: nothing to say


def test_a_net_keeps_a_buffer_that_is_called_like_a_mean(tmp_path: Path) -> None:
    class Centred(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.register_buffer("mean", torch.rand(4))

    source = Centred()
    torch.save(source.state_dict(), tmp_path / "a.pt")
    net = PublicCheckpoint(Centred(), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.mean, source.mean)
    assert isinstance(net.normalize, nn.Identity)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"model": {"bias": torch.zeros(3)}}, "does not fit Linear: missing weight"),
        ({"model": small(7)}, r"misshapen weight \(7, 4\) for \(3, 4\), bias \(7,\) for \(3,\)"),
        (small(extra=torch.zeros(1)), "unexpected extra"),
        ({"conv.weight": torch.zeros(1), "model": 3}, "missing weight, bias; unexpected conv.weight"),
        (behind("model.", small(), **{"head.scale": torch.ones(1)}), "behind 'model.': unexpected head.scale"),
        (behind("model.", small(), **{"normalizer.mean": MEAN, "normalizer.variance": STD}), "both of normalizer.mean"),
        (behind("model.", small(), **{"model.2.weight": torch.ones(1)}), "behind 'model.': unexpected 2.weight"),
        (small(mu=MEAN), "must hold both of mu and sigma, got mu"),
        (small(mean=MEAN), "must hold both of mean and std, got mean"),
        (small(mu=MEAN, sigma=0 * STD), r"a normalization that is none: Normalize\(std=...\) must be > 0"),
        ({**behind("a.", small()), **behind("b.", small())}, "of one net, those behind 'a.' and behind 'b.' fit"),
        ({k: v.long() for k, v in small().items()}, "mistyped weight torch.int64 for torch.float32"),
        ({"epoch": 3}, r"must hold a state dict, .* or behind key=..., got the keys epoch$"),
        ({"epoch": 3, "ema": small(), "swa": {"a": torch.ones(1)}}, r"or behind key=..., got tensors behind ema, swa$"),
        ([torch.zeros(1)], "must hold a state dict, .* got a list"),
    ],
)
def test_another_architecture_is_named_by_its_first_keys(tmp_path: Path, stored: Any, message: str) -> None:
    torch.save(stored, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))


def test_of_several_state_dicts_that_fit_one_is_chosen_by_its_key(tmp_path: Path) -> None:
    raw, averaged = small(), small()
    torch.save({"epoch": 3, "model": raw, "ema": averaged, "optimizer": {"state": {}}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"of this net several times, behind model, ema: choose by key"):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    for key, expected in (("model", raw), ("ema", averaged)):
        net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"), key=key)
        assert torch.equal(net.net.weight, expected["weight"])
    with pytest.raises(ValueError, match=r"behind key='emma', got tensors behind model, ema"):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"), key="emma")


def test_weights_alone_and_behind_a_key_are_several_too(tmp_path: Path) -> None:
    raw, averaged = small(), small()
    torch.save({**raw, "ema": averaged}, tmp_path / "a.pt")
    message = r"several times, alone and behind ema: choose by key=..., as key='ema', or key='' for those alone$"
    with pytest.raises(ValueError, match=message):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    for key, expected in (("", raw), ("ema", averaged)):
        net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"), key=key)
        assert torch.equal(net.net.weight, expected["weight"])


@pytest.mark.parametrize(
    ("others", "where"), [({"model": {"a": torch.ones(1)}}, "behind 'model'"), ({"a": torch.ones(1)}, "behind no key")]
)
def test_a_key_behind_which_the_weights_would_fit_is_said(tmp_path: Path, others: Any, where: str) -> None:
    torch.save({**others, "ema": small()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"behind 'ema', and others {where}: choose by key='ema'$"):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))


def test_of_the_usual_keys_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    weights = small()
    torch.save({"model": {"a": torch.ones(1)}, "net": weights}, tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.weight, weights["weight"])


@pytest.mark.parametrize("keys", [("model", "net"), ("ema", "model")])
def test_the_same_weights_behind_several_keys_are_one(tmp_path: Path, keys: tuple[str, str]) -> None:
    weights = small()
    torch.save({key: weights for key in keys}, tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.weight, weights["weight"])


@pytest.mark.parametrize(
    ("value", "message"),
    [(3, "the keys 0, 1, 2, 3, 4 and 4 more$"), ({"a": torch.ones(1)}, "behind 0, 1, 2, 3, 4 and 4 more$")],
)
def test_of_many_keys_the_first_are_listed(tmp_path: Path, value: Any, message: str) -> None:
    torch.save({str(number): value for number in range(9)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))


def test_what_lies_beside_the_weights_is_no_second_net(tmp_path: Path) -> None:
    stored = {"model": behind("module.model.", small()), "statistics": {"mean": MEAN}, "net": {"width": 3}}
    torch.save(stored, tmp_path / "a.pt")
    net = PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    assert torch.equal(net.net.weight, stored["model"]["module.model.weight"])


def test_a_damaged_file_and_half_a_normalization_are_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="give both or none"):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"), mean=[0.5])
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="a damaged one"):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "a.pt"))
    with pytest.raises(FileNotFoundError):
        PublicCheckpoint(nn.Linear(4, 3), str(tmp_path / "b.pt"))
    with pytest.raises(ValueError, match="must be one of 18, 34, 50, got 20"):
        CifarResNet(20)
