"""The table of attacks: every row runs through every property of `test_attack_table.py`. A new attack is a new row."""

from __future__ import annotations

from touchstone.attacks import (
    EAD,
    FGSM,
    L0,
    L1,
    L2,
    MIFGSM,
    PGD,
    Attack,
    CarliniWagner,
    DeepFool,
    GaussianNoise,
    HopSkipJump,
    L1Adam,
    Linf,
    Margin,
    RandomNoise,
    Strongest,
    Targeted,
    Untargeted,
)

LINF, SMALL_L2, SMALL_L1, SMALL_L0 = Linf(eps=0.1), L2(eps=0.5), L1(eps=2.5), L0(eps=3)

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
    "pgd, from the sample": PGD(threat=LINF, num_steps=8, random_start=False),
    "pgd, margin": PGD(threat=LINF, num_steps=8, objective=Untargeted(loss=Margin())),
    "pgd, restarts": PGD(threat=LINF, num_steps=4, num_restarts=3),
    "pgd, restarts, l2": PGD(threat=SMALL_L2, num_steps=4, num_restarts=3),
    "pgd, no early stop": PGD(threat=LINF, num_steps=8, early_stop=False),
    "pgd, 2 eot samples": PGD(threat=LINF, num_steps=4, num_eot_samples=2, num_restarts=2),
    "pgd, class 2": PGD(threat=LINF, num_steps=8, objective=Targeted(target=2)),
    "pgd, random class": PGD(threat=LINF, num_steps=8, objective=Targeted(target="random")),
    "pgd, least likely": PGD(threat=LINF, num_steps=8, objective=Targeted(target="least_likely")),
    "pgd, runner-up, margin": PGD(threat=LINF, num_steps=8, objective=Targeted(target="runner_up", loss=Margin())),
    "strongest": Strongest(threat=LINF, num_steps=4, num_target_steps=4),
    "strongest, l2": Strongest(threat=SMALL_L2, num_steps=4, num_target_steps=4, num_rounds=2, near=1),
    "strongest, l1": Strongest(threat=SMALL_L1, num_steps=4, num_target_steps=4),
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
}
