"""Every attack of the tables, and every net from scratch, does on CUDA what it does on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from touchstone.attacks import (
    PGD,
    EmbeddingBall,
    HotFlip,
    Linf,
    Margin,
    Surprise,
    TokenFlips,
    evaluate,
    evaluate_language,
    smallest_eps,
)
from touchstone.nets import (
    GRU,
    LSTM,
    RNN,
    GraphNet,
    HandmadeNet,
    RecurrentLM,
    SetClassifier,
    SmallCNN,
    TextClassifier,
    TransformerBlock,
    TransformerLM,
)
from touchstone.nets.generate import Sampling, generate

from .attacks_table import ATTACKS
from .oracles import images, own_labels, small_net
from .tokens_table import TOKEN_ATTACKS, text_net, texts

pytestmark = pytest.mark.gpu


OF_FLOAT64 = {"transfer, class 2, l2": "transfer from float64"}


def check_verdicts(net: nn.Module, x: Tensor, y: Tensor, attack: Any) -> None:
    """Holds that the verdicts are those of the CPU, except at near-zero margins."""
    on_cpu = evaluate(net, x, y, {"a": attack}, keep_adversarial=True)
    net.cuda()
    on_gpu = evaluate(net, x.cuda(), y.cuda(), {"a": attack}, keep_adversarial=True)
    assert on_gpu.x_adv["a"].device == next(net.parameters()).device
    if x.is_floating_point():
        with torch.no_grad():
            is_clear = Margin()(net.eval()(on_gpu.x_adv["a"]), y.cuda()).abs().cpu() > 1e-3
    else:
        is_clear = torch.ones(len(x), dtype=torch.bool)
    differs = on_cpu.robust["a"] != on_gpu.robust["a"].cpu()
    assert not (differs & is_clear).any()


@pytest.mark.filterwarnings("ignore:signs of gradient masking")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=[OF_FLOAT64.get(name, name) for name in ATTACKS])
def test_attacks_of_images(attack: Any) -> None:
    net, x = small_net(), images(10)
    check_verdicts(net, x, own_labels(net, x), attack)


@pytest.mark.parametrize("attack", TOKEN_ATTACKS.values(), ids=TOKEN_ATTACKS)
def test_attacks_of_texts(attack: Any) -> None:
    net, x = text_net(), texts(10)
    check_verdicts(net, x, net(x).argmax(1), attack)


CYCLIC = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 0]]
GREEDY = Sampling(temperature=0)
TOKENS = torch.arange(24).reshape(2, 12) % 20
NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "rnn": (lambda: RNN(5, 8, 2), torch.linspace(-1, 1, 70).reshape(2, 7, 5)),
    "lstm": (lambda: LSTM(5, 8, 2), torch.linspace(-1, 1, 70).reshape(2, 7, 5)),
    "gru": (lambda: GRU(5, 8, 2), torch.linspace(-1, 1, 70).reshape(2, 7, 5)),
    "block": (lambda: TransformerBlock(8, 2, causal=True), torch.linspace(-1, 1, 112).reshape(2, 7, 8)),
    "recurrent lm": (lambda: RecurrentLM(20, cell="lstm", dim=8, hidden=8), TOKENS),
    "learned": (lambda: TransformerLM(20, dim=8, num_heads=2, num_layers=1, context=16), TOKENS),
    "sinusoidal": (
        lambda: TransformerLM(20, dim=8, num_heads=2, num_layers=1, context=16, positions="sinusoidal"),
        TOKENS,
    ),
    "rotary": (lambda: TransformerLM(20, dim=8, num_heads=2, num_layers=1, context=16, positions="rotary"), TOKENS),
    "text classifier": (lambda: TextClassifier(20, 3, body="gru", dim=8), TOKENS),
    "text transformer": (lambda: TextClassifier(20, 3, body="transformer", dim=8, num_heads=2), TOKENS),
    "set": (lambda: SetClassifier(3, 4), torch.linspace(-1, 1, 36).reshape(2, 6, 3)),
    "graph": (
        lambda: GraphNet(CYCLIC, num_inputs=2, num_outputs=1, num_steps=3),
        torch.linspace(-1, 1, 4).reshape(2, 2),
    ),
    "handmade": (HandmadeNet, torch.linspace(0, 1, 128).reshape(2, 1, 64)),
    "small cnn": (SmallCNN, torch.linspace(0, 1, 128).reshape(2, 1, 8, 8)),
}


@pytest.mark.parametrize("case", NETS)
def test_outputs_and_gradients_of_nets(case: str) -> None:
    make, x = NETS[case]
    found = []
    for net in (mine := make().eval(), copy.deepcopy(mine).cuda()):
        given = x.to(next(net.parameters()).device)
        outputs = tree_leaves(net(given))
        assert {output.device for output in outputs} == {given.device}
        grads = torch.autograd.grad(sum(output.square().sum() for output in outputs), [*net.parameters()])
        found.append([part.detach().cpu() for part in (*outputs, *grads)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["recurrent lm", "rotary"])
def test_a_language_model_writes_and_is_attacked(case: str) -> None:
    net = NETS[case][0]()
    x, y = TOKENS, torch.cat([TOKENS[:, 1:], TOKENS[:, :1]], 1)
    attacks = {
        "pgd": PGD(threat=EmbeddingBall(eps=0.3), objective=Surprise(), num_steps=3),
        "flip": HotFlip(threat=TokenFlips(2, vocab_size=20), objective=Surprise()),
    }
    on_cpu, text = evaluate_language(net.eval(), x, y, attacks), generate(net, x[:, :4], 8, GREEDY)  # type: ignore[arg-type]
    net.cuda()
    on_gpu = evaluate_language(net, x.cuda(), y.cuda(), attacks)
    for name in attacks:
        torch.testing.assert_close(on_gpu.after[name].cpu(), on_cpu.after[name], rtol=0, atol=1e-3)
    assert torch.equal(generate(net, x[:, :4].cuda(), 8, GREEDY).cpu(), text)  # type: ignore[arg-type]


def test_smallest_eps() -> None:
    net, x = small_net().eval(), images(10)
    y, attack = own_labels(net, x), PGD(threat=Linf(eps=0.1), num_steps=5)
    on_cpu = smallest_eps(net, x, y, attack, largest=0.3)
    on_gpu = smallest_eps(net.cuda(), x.cuda(), y.cuda(), attack, largest=0.3)
    assert on_gpu.isinf().tolist() == on_cpu.isinf().tolist()
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=2e-3, check_dtype=False)
