"""Public models with published figures, rebuilt from their state dicts, and the exact images to measure them on.

`trades_mnist`: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", 2019 (their
SmallCNN). `resnet2b`: the small ResNet without BatchNorm of the verification benchmark of Wang et al., "Beta-CROWN",
2021. `resnet20`: an ordinary one, trained without any attack, by Idelbayev, "Proper ResNet implementation for
CIFAR10/CIFAR100 in PyTorch". All take pixels in [0, 1]. Also small state dicts, put as
those of public models are.
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from touchstone.nets import Normalize, PublicCheckpoint, ResNet2b, ThinResNet

MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])  # of CIFAR-10


def small(num_classes: int = 3, **more: Tensor) -> dict[str, Tensor]:
    """The state dict of a linear layer of four features, and more beside it."""
    return {**nn.Linear(4, num_classes).state_dict(), **more}


def behind(prefix: str, state: dict[str, Tensor], **more: Tensor) -> dict[str, Tensor]:
    """A state dict with a prefix before its keys, as files of public models have it, and more beside it."""
    return {**{prefix + key: value for key, value in state.items()}, **more}


def resnet2b(shared: Path) -> nn.Module:
    net = ResNet2b()
    saved = torch.load(shared / "models/abcrown_resnet2b.pth", weights_only=True, map_location="cpu")
    net.load_state_dict(saved["state_dict"])
    return nn.Sequential(Normalize([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]), net).eval()


def resnet20(shared: Path) -> nn.Module:
    file = shared / "models/akamaster_resnet20-12fca82f.th"
    return PublicCheckpoint(ThinResNet(20), str(file), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).eval()


def trades_mnist(shared: Path) -> nn.Module:
    def conv(num_in: int, num_out: int) -> nn.Module:
        return nn.Conv2d(num_in, num_out, 3)

    features = nn.Sequential(
        OrderedDict(
            conv1=conv(1, 32), relu1=nn.ReLU(), conv2=conv(32, 32), relu2=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv3=conv(32, 64), relu3=nn.ReLU(), conv4=conv(64, 64), relu4=nn.ReLU(), pool2=nn.MaxPool2d(2),
        )
    )  # fmt: skip
    classifier = nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(), fc1=nn.Linear(1024, 200), relu1=nn.ReLU(), fc2=nn.Linear(200, 200), relu2=nn.ReLU(),
            fc3=nn.Linear(200, 10),
        )
    )  # fmt: skip
    net = nn.Sequential(OrderedDict(feature_extractor=features, classifier=classifier))
    net.load_state_dict(torch.load(shared / "models/trades_mnist_smallcnn.pt", weights_only=True, map_location="cpu"))
    return net.eval()


def cifar_images(shared: Path, num_samples: int) -> tuple[Tensor, Tensor]:
    data = np.load(shared / "data/cifar10_test1000_lossless.npz")
    x = torch.tensor(data["x"][:num_samples]).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(data["y"][:num_samples]).long()


def mnist_images(shared: Path, num_samples: int) -> tuple[Tensor, Tensor]:
    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(shared / "data" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    images, labels = read("t10k-images-idx3-ubyte.gz", 16), read("t10k-labels-idx1-ubyte.gz", 8)
    x = torch.tensor(images.reshape(-1, 1, 28, 28)[:num_samples].copy()).float() / 255
    return x, torch.tensor(labels[:num_samples].copy()).long()
