"""The table of attacks: every row runs through every property of `test_attack_table.py`. A new attack is a new row."""

from __future__ import annotations

import torch

from touchstone.attacks import (
    APGD,
    DLR,
    EAD,
    FAB,
    FGSM,
    L0,
    L1,
    L2,
    MIFGSM,
    PGD,
    AnyOf,
    Attack,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    FeatureDistance,
    GaussianNoise,
    HopSkipJump,
    InBfloat16,
    L1Adam,
    Linf,
    Margin,
    ProbabilityMargin,
    RandomNoise,
    Square,
    Strongest,
    Surrogate,
    Targeted,
    Towards,
    Transfer,
    Universal,
    Untargeted,
    WarmStarted,
)

from .oracles import images, own_labels, small_net

LINF, SMALL_L2, SMALL_L1, SMALL_L0 = Linf(eps=0.1), L2(eps=0.5), L1(eps=2.5), L0(eps=3)
CHANGE = torch.linspace(-0.2, 0.2, 36).reshape(1, 1, 6, 6)


def prepared(attack: Attack) -> Attack:
    """An attack that has learned from other samples than those that the properties are tried on."""
    x = images(60, seed=5)
    return attack.prepare(small_net(), x, own_labels(small_net(), x))


ATTACKS: dict[str, Attack] = {
    "noise": RandomNoise(threat=LINF),
    "noise, 5 tries": RandomNoise(threat=LINF, num_tries=5),
    "noise, l2": RandomNoise(threat=SMALL_L2),
    "noise, l1": RandomNoise(threat=SMALL_L1),
    "noise, l0": RandomNoise(threat=SMALL_L0),
    "fgsm": FGSM(threat=LINF),
    "fgsm, l2": FGSM(threat=SMALL_L2),
    "fgsm, l1": FGSM(threat=SMALL_L1),
    "fgsm, l0": FGSM(threat=SMALL_L0),
    "pgd": PGD(threat=LINF, num_steps=8),
    "pgd, l2": PGD(threat=SMALL_L2, num_steps=8),
    "pgd, l1": PGD(threat=SMALL_L1, num_steps=8),
    "pgd, l0": PGD(threat=SMALL_L0, num_steps=8),
    "pgd, from nearby": PGD(threat=LINF, num_steps=8, start_std=0.001),
    "pgd, from the sample": PGD(threat=LINF, num_steps=8, random_start=False),
    "pgd, margin": PGD(threat=LINF, num_steps=8, objective=Untargeted(loss=Margin())),
    "pgd, restarts": PGD(threat=LINF, num_steps=4, num_restarts=3),
    "pgd, restarts, l2": PGD(threat=SMALL_L2, num_steps=4, num_restarts=3),
    "pgd, no early stop": PGD(threat=LINF, num_steps=8, early_stop=False),
    "pgd, 2 eot samples": PGD(threat=LINF, num_steps=4, num_eot_samples=2, num_restarts=2),
    "pgd, to the end": PGD(threat=LINF, num_steps=8, to_the_end=True),
    "pgd, class 2": PGD(threat=LINF, num_steps=8, objective=Targeted(target=2)),
    "pgd, random class": PGD(threat=LINF, num_steps=8, objective=Targeted(target="random")),
    "pgd, least likely": PGD(threat=LINF, num_steps=8, objective=Targeted(target="least_likely")),
    "pgd, runner-up, margin": PGD(threat=LINF, num_steps=8, objective=Targeted(target="runner_up", loss=Margin())),
    "pgd, dlr": PGD(threat=LINF, num_steps=8, objective=Untargeted(loss=DLR())),
    "pgd, probability margin": PGD(threat=LINF, num_steps=8, objective=Untargeted(loss=ProbabilityMargin())),
    "pgd, class 2, dlr": PGD(threat=LINF, num_steps=8, objective=Targeted(target=2, loss=DLR())),
    "pgd, class 1 or 2": PGD(threat=LINF, num_steps=8, objective=AnyOf([1, 2])),
    "square, class 1 or 2": Square(threat=LINF, num_queries=15, objective=AnyOf([1, 2], loss=Margin())),
    "pgd, towards the runner-up": PGD(threat=LINF, num_steps=8, objective=Towards(target="runner_up", loss=Margin())),
    "apgd": APGD(threat=LINF, num_steps=8),
    "apgd, l2": APGD(threat=SMALL_L2, num_steps=8),
    "apgd, l1": APGD(threat=SMALL_L1, num_steps=8),
    "apgd, 2 classes, 2 restarts": APGD(
        threat=LINF, num_steps=4, num_targets=2, num_restarts=2, objective=Untargeted(loss=DLR())
    ),
    "apgd, 2 eot samples": APGD(threat=LINF, num_steps=4, num_eot_samples=2),
    "apgd, class 2": APGD(threat=LINF, num_steps=8, objective=Targeted(target=2)),
    "fab": FAB(threat=LINF, num_steps=4),
    "fab, l2": FAB(threat=SMALL_L2, num_steps=4),
    "fab, l1": FAB(threat=SMALL_L1, num_steps=4),
    "fab, 2 classes, 2 restarts": FAB(threat=LINF, num_steps=3, num_targets=2, num_restarts=2),
    "fab, no early stop": FAB(threat=LINF, num_steps=4, early_stop=False),
    "fab, class 2": FAB(threat=LINF, num_steps=8, objective=Targeted(target=2)),
    "feature distance": FeatureDistance(threat=LINF, layer="2", num_steps=8),
    "feature distance, l2": FeatureDistance(threat=SMALL_L2, layer="0", num_steps=8),
    "square": Square(threat=LINF, num_queries=15),
    "square, l2": Square(threat=SMALL_L2, num_queries=15),
    "square, l1": Square(threat=SMALL_L1, num_queries=15),
    "square, restarts": Square(threat=LINF, num_queries=10, num_restarts=2),
    "square, class 2": Square(threat=LINF, num_queries=15, objective=Targeted(target=2, loss=Margin())),
    "autoattack": AutoAttack(threat=LINF, num_steps=4, num_queries=10),
    "autoattack, l1": AutoAttack(threat=SMALL_L1, num_steps=4, num_queries=10),
    "autoattack, plus, l2": AutoAttack(threat=SMALL_L2, version="plus", num_steps=2, num_queries=10),
    "autoattack, rand": AutoAttack(threat=LINF, version="rand", num_steps=2),
    "strongest": Strongest(threat=LINF),
    "strongest, 5 passes": Strongest(threat=LINF, max_passes=5),
    "strongest, thorough": Strongest(threat=LINF, max_passes=400),
    "strongest, l2": Strongest(threat=SMALL_L2),
    "strongest, l1": Strongest(threat=SMALL_L1),
    "strongest, l0": Strongest(threat=SMALL_L0),
    "gaussian": GaussianNoise(threat=LINF),
    "gaussian, 4 tries, l2": GaussianNoise(threat=SMALL_L2, num_tries=4, rel_sigma=0.2),
    "mifgsm": MIFGSM(threat=LINF, num_steps=5),
    "mifgsm, l2, to the end": MIFGSM(threat=SMALL_L2, num_steps=5, to_the_end=True),
    "deepfool": DeepFool(threat=LINF, num_steps=8),
    "deepfool, l2, 3 classes": DeepFool(threat=SMALL_L2, num_steps=8, num_classes=3),
    "carlini wagner": CarliniWagner(threat=SMALL_L2, num_steps=20, num_rounds=4, step_size=0.05, first_weight=0.1),
    "carlini wagner, class 2": CarliniWagner(
        threat=L2(eps=1), objective=Targeted(target=2), num_steps=20, num_rounds=3, step_size=0.05, first_weight=0.1
    ),
    "carlini wagner, minimal": CarliniWagner(
        threat=SMALL_L2, num_steps=10, num_rounds=4, step_size=0.1, first_weight=0.1, confidence=0.01, minimal=True
    ),
    "ead": EAD(threat=SMALL_L1, num_steps=20, num_rounds=4, first_weight=0.1, step_size=0.05),
    "ead, elastic net, minimal": EAD(
        threat=SMALL_L1, num_steps=20, num_rounds=3, first_weight=1, step_size=0.05, rule="elastic net", minimal=True
    ),
    "l1 adam": L1Adam(threat=SMALL_L1, num_steps=10, step_size=0.05),
    "l1 adam, linf": L1Adam(threat=LINF, num_steps=10, step_size=0.03),
    "hop skip jump": HopSkipJump(threat=LINF, num_queries=300, num_directions=30),
    "hop skip jump, l2, minimal": HopSkipJump(threat=SMALL_L2, num_queries=200, num_directions=30, minimal=True),
    "transfer": Transfer(attack=PGD(threat=LINF, num_steps=8), source=small_net()),
    "transfer, class 2, l2": Transfer(
        attack=PGD(threat=SMALL_L2, num_steps=8, objective=Targeted(target=2)), source=small_net(dtype=torch.float64)
    ),
    "transfer, least likely": Transfer(
        attack=PGD(threat=LINF, num_steps=8, objective=Targeted(target="least_likely")), source=small_net()
    ),
    "surrogate": prepared(Surrogate(threat=LINF, net=small_net(seed=1), num_queries=300)),
    "universal": prepared(Universal(threat=LINF)),
    "universal, class 2": prepared(Universal(threat=LINF, objective=Targeted(target=2))),
    "universal, l2": prepared(Universal(threat=SMALL_L2)),
    "universal, l1": prepared(Universal(threat=SMALL_L1)),
    "universal, l0": prepared(Universal(threat=SMALL_L0)),
    "universal, transferred": prepared(Transfer(attack=Universal(threat=LINF), source=small_net())),
    "pgd, warm": WarmStarted(attack=PGD(threat=LINF, num_steps=4), perturbation=CHANGE),
    "pgd, in bfloat16": InBfloat16(attack=PGD(threat=LINF, num_steps=8)),
    "pgd, warm, l0, least likely": WarmStarted(
        attack=PGD(threat=SMALL_L0, num_steps=8, objective=Targeted(target="least_likely")), perturbation=CHANGE
    ),
}
