"""Nets that say what token follows, their generation, and `LanguageModel` around them."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from touchstone.datamodules import TextDataModule
from touchstone.lightning_modules import LanguageModel, WarmupCosine
from touchstone.nets import RecurrentLM, TransformerLM
from touchstone.nets.generate import Sampling, generate

from .lightning_programs import events, trainer

NETS: dict[str, Any] = {
    "learned": lambda: TransformerLM(11, dim=16, num_heads=2, num_layers=2, context=8),
    "rotary": lambda: TransformerLM(11, dim=16, num_heads=2, num_layers=2, context=8, positions="rotary"),
    "sinusoidal": lambda: TransformerLM(11, dim=16, num_heads=2, context=8, positions="sinusoidal", tie_weights=False),
    "lstm": lambda: RecurrentLM(11, dim=8, hidden=8, num_layers=2, tie_weights=True),
    "gru": lambda: RecurrentLM(11, cell="gru", dim=8, hidden=12),
    "rnn": lambda: RecurrentLM(11, cell="rnn", dim=8, hidden=12),
}
every_net = pytest.mark.parametrize("name", NETS)
SMALL = {"context": 16, "batch_size": 8, "steps_per_epoch": 3, "val_share": 0.1, "test_share": 0.1}


def net(name: str) -> Any:
    torch.manual_seed(0)
    made = NETS[name]().double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def prompt(num_tokens: int = 3) -> Tensor:
    return torch.randint(11, (2, num_tokens), generator=torch.Generator().manual_seed(1))


@every_net
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.0), Sampling(temperature=0.7, top_k=5, top_p=0.9)]
)
def test_a_text_with_a_state_is_the_text_without(name: str, sampling: Sampling) -> None:
    """Also behind the end of the context, from where a transformer forgets."""
    texts = [
        generate(net(name), prompt(), 30, sampling, use_state=use_state, generator=torch.Generator().manual_seed(0))
        for use_state in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape == (2, 33)
    assert torch.equal(texts[0][:, :3], prompt())


@every_net
def test_a_token_costs_one_forward_of_one_token(name: str) -> None:
    made, seen = net(name), []
    made.embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    generate(made, prompt(), 30)
    if made.context is None:
        assert seen == [3] + [1] * 29
    else:  # the context of 8 is full four times or more: then half of it is computed again
        assert seen[:6] == [3] + [1] * 5
        assert seen.count(4) == 5
        assert sum(seen) < 2 * 33


@every_net
def test_a_long_prompt_is_cut_to_what_the_net_can_see(name: str) -> None:
    text = generate(net(name), prompt(20), 3, Sampling(temperature=0))
    seen = prompt(20) if net(name).context is None else prompt(20)[:, -4:]
    assert torch.equal(text[:, -3:], generate(net(name), seen, 3, Sampling(temperature=0))[:, -3:])


def test_tokens_are_drawn_as_often_as_the_net_says() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    exact = torch.exp(logits / 0.5) / torch.exp(logits / 0.5).sum()
    torch.testing.assert_close(Sampling(temperature=0.5).probabilities(logits), exact)
    two = torch.tensor([[math.exp(2), math.exp(1), 0, 0]]) / (math.exp(2) + math.exp(1))
    torch.testing.assert_close(Sampling(top_k=2).probabilities(logits), two)
    torch.testing.assert_close(Sampling(top_k=9).probabilities(logits), logits.softmax(1))
    # 0.64 and 0.24 reach 0.8 together, and 0.64 alone reaches 0.6.
    torch.testing.assert_close(Sampling(top_p=0.8).probabilities(logits), two)
    torch.testing.assert_close(Sampling(top_p=0.6).probabilities(logits), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(Sampling(temperature=0).probabilities(logits), torch.tensor([[1.0, 0, 0, 0]]))
    shuffled = torch.tensor([[0.0, 2.0, -1.0, 1.0]])
    torch.testing.assert_close(Sampling(top_k=2).probabilities(shuffled), two[:, [2, 0, 3, 1]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_most_probable_tokens_are_added_up_in_full_precision(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = logits[0].double().softmax(0).sort(descending=True).values
    expected = int((exact.cumsum(0) - exact < 0.99).sum())
    found = Sampling(top_p=0.99).probabilities(logits)
    assert int((found > 0).sum()) == expected
    assert float(found.double().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-30])
def test_the_lowest_temperatures_take_the_most_probable_token(temperature: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 50.0, -1.0], [-7.0, -float("inf"), -8.0, -9.0]])
    expected = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
    for options in ({}, {"top_k": 2, "top_p": 0.5}):
        found = Sampling(temperature=temperature, **options).probabilities(logits)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_from_logits_that_are_not_finite_nothing_is_drawn(temperature: float) -> None:
    made = net("lstm")
    for wrong in (float("nan"), float("inf")):
        nn.init.constant_(made.head.bias, wrong)
        with pytest.raises(ValueError, match="a token cannot be drawn: the logits are not finite"):
            generate(made, prompt(), 1, Sampling(temperature=temperature))


def test_a_validation_of_a_net_that_is_not_finite_writes_no_sample_and_says_so_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lm = RecurrentLM(256, dim=8, hidden=16)
    module = LanguageModel(lm, lambda groups: torch.optim.SGD(groups, lr=1e38), sample_tokens=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, max_epochs=2).fit(module, datamodule=text_data(tmp_path))
    said = [str(warning.message) for warning in caught if "sample" in str(warning.message)]
    assert len(said) == 1
    assert re.match("LanguageModel writes no sample while this is so: .* the logits are not finite", said[0])
    assert not list(tmp_path.rglob("samples.txt"))


def test_no_logit_depends_on_a_later_token() -> None:
    for name in NETS:
        made, tokens = net(name), prompt(6)
        changed = tokens.clone()
        changed[:, 4] = (tokens[:, 4] + 1) % 11
        torch.testing.assert_close(made(changed)[:, :4], made(tokens)[:, :4])
        assert not torch.allclose(made(changed)[:, 4:], made(tokens)[:, 4:])


def test_tied_weights_are_one_and_are_trained_as_one() -> None:
    for made in (TransformerLM(11, dim=16, num_heads=2), net("lstm")):
        assert made.head.weight is made.embedding.weight
        assert len([name for name, _ in made.named_parameters() if "head.weight" in name]) == 0


def text_data(folder: Path, **options: Any) -> TextDataModule:
    file = folder / "text.txt"
    file.write_text("".join(f"The square of {number} is {number**2}, and no more é.\n" for number in range(100)))
    options = {**SMALL, **options}
    return TextDataModule(files=[str(file)], tokens="bytes", token_folder=str(folder / "tokens"), **options)


def small_lm(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(TransformerLM(256, dim=16, num_heads=2, num_layers=1, context=16), **options)


def test_figures_are_means_over_every_token(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    with torch.no_grad():
        batches = [(module.eval()(x).mT, y) for x, y in data.val_dataloader()]
    losses = [F.cross_entropy(logits, y, reduction="none").flatten() for logits, y in batches]
    nats = float(torch.cat(losses).double().mean())
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(nats, rel=1e-5)
    assert float(run.callback_metrics["val/perplexity"]) == pytest.approx(math.exp(nats), rel=1e-4)
    said = b"".join(bytes(y.flatten().tolist()) for _, y in batches).decode()
    assert "é" in said
    bits = nats / math.log(2) * len(said.encode()) / len(said)
    assert float(run.callback_metrics["val/bits_per_character"]) == pytest.approx(bits, rel=1e-5)


def test_a_sample_is_shown_at_each_validation_and_changes_nothing(tmp_path: Path) -> None:
    trained = []
    for name, options in (("silent", {"sample_tokens": 0}), ("writing", {"sample_tokens": 30, "prompt": "The "})):
        pl.seed_everything(0)
        module = small_lm(**options)
        trainer(tmp_path / name, max_epochs=2).fit(module, datamodule=text_data(tmp_path))
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])
    written = next((tmp_path / "writing").rglob("samples.txt")).read_text()
    assert written.count("=== step") == 2
    assert "=== step 2\nThe " in written
    assert not list((tmp_path / "silent").rglob("samples.txt"))
    shown = events(tmp_path / "writing")
    steps = [event.step for event in shown.Scalars("val/loss")]
    assert [event.step for event in shown.Tensors("val/sample/text_summary")] == steps


def test_a_sample_leaves_each_part_of_the_net_in_its_mode(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    module.train()
    module.net.dropout.eval()  # type: ignore[union-attr]
    before = [part.training for part in module.modules()]
    module.sample("The ", 1)
    assert [part.training for part in module.modules()] == before


def test_a_carried_state_is_that_of_the_whole_text(tmp_path: Path) -> None:
    """Batch by batch with a carried state, the validation loss is that of each row of text in one piece."""
    data = text_data(tmp_path, order="streams", batch_size=4)
    torch.manual_seed(0)
    module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    batches = list(data.val_dataloader())
    x, y = (torch.cat([batch[part] for batch in batches], 1) for part in (0, 1))
    with torch.no_grad():
        expected = F.cross_entropy(module.eval()(x).mT, y)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_state_ends_with_its_epoch_and_its_gradient_with_its_batch(tmp_path: Path) -> None:
    module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(module, datamodule=text_data(tmp_path, order="streams", batch_size=4))
    assert all(not part.requires_grad for part in module._carried["train"][0])
    module.on_train_epoch_start()
    assert not module.process_state()


def test_a_state_is_carried_only_where_rows_continue_and_the_state_does_not_grow(tmp_path: Path) -> None:
    data, net = text_data(tmp_path, order="random"), RecurrentLM(256, dim=8, hidden=16)
    for run in ("fit", "validate", "test"):
        module = LanguageModel(net, carry_state=True, sample_tokens=0)
        with pytest.raises(
            ValueError, match=r"carry_state=True\): .* which is TextDataModule\(order='streams'\), got order='random'"
        ):
            getattr(trainer(tmp_path), run)(module, datamodule=data)
    trainer(tmp_path, limit_predict_batches=1).predict(LanguageModel(net, carry_state=True), data)  # carries none
    with pytest.raises(
        ValueError,
        match=r"LanguageModel\(carry_state=True\): the net must carry a state of one size, as RecurrentLM does; "
        r"TransformerLM carries the keys and values of a context of 16 tokens",
    ):
        small_lm(carry_state=True)


def test_the_rate_rises_and_falls() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = WarmupCosine(optimizer, 3, 13, 0.1), []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[8] == pytest.approx((2.0 + 0.2) / 2)
    assert rates[13:] == pytest.approx([0.2] * 3)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_rate_that_waits_for_a_figure_falls_after_an_epoch_without_progress(tmp_path: Path) -> None:
    """A net that learns nothing is no better than at first in three of four epochs."""
    module = LanguageModel(
        RecurrentLM(256, dim=8, hidden=16),
        lambda groups: torch.optim.SGD(groups, lr=0.8),
        lambda optimizer: ReduceLROnPlateau(optimizer, "val/loss", factor=0.5, patience=0),
        sample_tokens=0,
    )
    for parameter in module.parameters():
        parameter.register_hook(torch.zeros_like)
    run = trainer(tmp_path, max_epochs=4)
    run.fit(module, datamodule=text_data(tmp_path))
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([0.1] * 2)


def test_only_matrices_decay() -> None:
    optimizer = small_lm().configure_optimizers()
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}  # type: ignore[union-attr]
    assert decays == {2: 0.01, 1: 0.0}


@pytest.mark.slow
def test_the_config_for_text_writes_words_of_its_vocabulary(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the temperature of the config, and still mostly at a higher one."""
    import train

    monkeypatch.chdir(tmp_path)
    assert train.main(["fit", "--config", str(root / "configs/text.yaml")]) == 0
    stored = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["state_dict"]
    made = RecurrentLM(256, cell="gru", dim=64, hidden=256).eval()
    made.load_state_dict({name.removeprefix("net."): value for name, value in stored.items() if "net." in name})
    data = TextDataModule(tokens="bytes")
    data.setup("fit")
    known = set(re.findall("[a-z]+", bytes(data.splits["train"]).decode().lower()))
    first = torch.tensor([list(b"The ")] * 8)
    for temperature, least in ((0.5, 0.85), (0.8, 0.65)):
        ids = generate(made, first, 500, Sampling(temperature=temperature), generator=torch.Generator().manual_seed(0))
        words = re.findall("[a-z]+", " ".join(data.vocabulary.decode(row) for row in ids.tolist()).lower())
        assert sum(word in known for word in words) / len(words) > least


def test_a_net_that_cannot_go_on_is_refused_before_training_and_trains_without_samples(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Embedding(256, 4), nn.Linear(4, 256))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.net(tokens)

    net, data = Plain(), text_data(tmp_path)
    with pytest.raises(
        ValueError, match=r"\(sample_tokens=200\): .* Plain lacks 'extend' and 'context'; sample_tokens=0"
    ):
        LanguageModel(net)
    with pytest.raises(ValueError, match=r"\(carry_state=True\): the net must have 'extend', .* Plain lacks 'extend'$"):
        LanguageModel(net, sample_tokens=0, carry_state=True)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(LanguageModel(net, sample_tokens=0), data)
    assert "val/perplexity" in run.callback_metrics


@pytest.mark.parametrize("prompt", [None, "the"])
def test_loaders_of_ones_own_train_without_samples_and_it_is_said_once(tmp_path: Path, prompt: str | None) -> None:
    tokens = torch.randint(7, (12, 9), generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 4)
    run = trainer(tmp_path, max_epochs=2, num_sanity_val_steps=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(LanguageModel(RecurrentLM(7, dim=4, hidden=4), prompt=prompt), loader, loader)
    said = [str(warning.message) for warning in caught if "sample_tokens=0" in str(warning.message)]
    assert len(said) == 1
    assert "LanguageModel writes no samples, which need a data module" in said[0]
    assert run.global_step == 6
    assert "val/perplexity" in run.callback_metrics


class OwnVocabulary:
    """Turns texts into tokens and back, and has no name for a token."""

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize("prompt", [None, "a"])
def test_a_vocabulary_without_names_is_enough_for_a_prompt_of_ones_own(tmp_path: Path, prompt: str | None) -> None:
    class OwnData(pl.LightningDataModule):
        vocabulary = OwnVocabulary()

        def val_dataloader(self) -> DataLoader:
            tokens = torch.randint(256, (4, 9), generator=torch.Generator().manual_seed(0))
            return DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 4)

    module, run = LanguageModel(RecurrentLM(256, dim=4, hidden=4), prompt=prompt, sample_tokens=5), trainer(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(module, OwnData(), verbose=False)
    said = [str(warning.message) for warning in caught if "writes no samples" in str(warning.message)]
    assert Path(str(run.log_dir), "samples.txt").exists() == (prompt is not None) == (not said)
    assert all("; here it lacks names;" in message for message in said)


@pytest.mark.parametrize(
    ("positions", "window", "prompt", "sample_tokens", "is_said"),
    [
        ("learned", 8, None, 9, True),
        ("learned", 16, None, 50, False),
        ("learned", 8, None, 8, False),
        ("learned", 8, "the", 7, True),
        ("learned", 8, "the", 6, False),
        ("learned", 8, "so it goes on", 0, False),
        ("rotary", 8, None, 50, False),
    ],
)
def test_samples_at_positions_that_no_window_reaches_are_warned_of(
    tmp_path: Path, positions: Any, window: int, prompt: str | None, sample_tokens: int, is_said: bool
) -> None:
    lm = TransformerLM(256, dim=8, num_heads=2, num_layers=1, context=16, positions=positions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, max_epochs=1)
        run.fit(
            LanguageModel(lm, sample_tokens=sample_tokens, prompt=prompt),
            datamodule=text_data(tmp_path, context=window),
        )
    said = [str(warning.message) for warning in caught if "positions" in str(warning.message)]
    assert len(said) == is_said
    assert not said or "learnt positions for 16 tokens and is trained on windows of 8" in said[0]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"temperature": -1.0}, r"Sampling\(temperature=...\) must be >= 0 and finite, got -1.0"),
        ({"top_k": 0}, r"Sampling\(top_k=...\) must be >= 1, or None for all, got 0"),
        ({"top_k": True}, r"Sampling\(top_k=...\) must be a whole number >= 1, or None for all, got True"),
        ({"top_k": 2.5}, r"Sampling\(top_k=...\) must be a whole number >= 1, or None for all, got 2.5"),
        ({"top_p": 0.0}, r"Sampling\(top_p=...\) must be in \(0, 1\], or None for all, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampling(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prompt must be ids \(batch, tokens\), at least one, got \(2, 0\)"):
        generate(net("lstm"), prompt(0), 3)
    with pytest.raises(ValueError, match=r"generate\(num_tokens=...\) must be >= 0, got -1"):
        generate(net("lstm"), prompt(), -1)
    with pytest.raises(ValueError, match=r"LM\(context=8\): LearnedPositions\(max_tokens=8\): a sequence of 9 tok"):
        net("learned")(prompt(9))
    for name in NETS:
        owner = type(net(name)).__name__
        for wrong, got in ((prompt()[0], r"torch.int64 \(3,\)"), (prompt().byte(), r"torch.uint8 \(2, 3\); use `.lo")):
            with pytest.raises(ValueError, match=rf"{owner}: the tokens must be ids `\(texts, tokens\)`, got {got}"):
                net(name)(wrong)
        for low, high in ((0, 11), (-1, 10)):
            with pytest.raises(
                ValueError, match=rf"{owner}\(vocab_size=11\): .* ids from 0 to 10, got {low} to {high}"
            ):
                net(name)(torch.tensor([[low, high]]))
    with pytest.raises(ValueError, match=r"tie_weights=True\): hidden must be dim, got 9 and 8"):
        RecurrentLM(11, dim=8, hidden=9, tie_weights=True)
    with pytest.raises(ValueError, match=r"RecurrentLM\(cell=...\) must be one of 'rnn', 'lstm', 'gru', got 'sru'"):
        RecurrentLM(11, cell="sru")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be one of 'learned', 'sinusoidal', 'rotary', got 'none'"):
        TransformerLM(11, positions="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"TransformerLM\(vocab_size=...\) must be >= 2, got 1"):
        TransformerLM(1)
    with pytest.raises(ValueError, match="needs a data module with a `vocabulary`"):
        small_lm().sample()
    module = LanguageModel(RecurrentLM(11))
    with pytest.raises(ValueError, match="the net has 11 tokens and the text 256: set vocab_size=256"):
        trainer(tmp_path).fit(module, datamodule=text_data(tmp_path))
    text = tmp_path / "letters.txt"
    text.write_text("abcd " * 500)
    data = TextDataModule(files=[str(text)], token_folder=str(tmp_path / "tokens"), **SMALL)
    module = LanguageModel(RecurrentLM(5), prompt="abé")
    with pytest.raises(ValueError, match=r"prompt=...\): the text has 'é' at position 2, which is none of the 5 char"):
        trainer(tmp_path).fit(module, datamodule=data)
    with pytest.raises(ValueError, match="must be None or a text, got an empty one"):
        trainer(tmp_path).fit(LanguageModel(RecurrentLM(5), prompt=""), datamodule=data)


def test_a_checkpoint_is_measured_by_the_characters_that_it_was_trained_with(tmp_path: Path) -> None:
    def letters(text: str) -> TextDataModule:
        (tmp_path / f"{text}.txt").write_text((text + " ") * 300)
        return TextDataModule(files=[str(tmp_path / f"{text}.txt")], token_folder=str(tmp_path / "tokens"), **SMALL)

    def untrained() -> LanguageModel:
        return LanguageModel(RecurrentLM(5, dim=8, hidden=8), lambda p: torch.optim.Adam(p, lr=0.05), prompt="ab")

    module = untrained()
    run, trained = trainer(tmp_path, max_epochs=8), tmp_path / "trained.ckpt"
    run.fit(module, datamodule=letters("abcd"))
    run.save_checkpoint(trained)
    (own,) = trainer(tmp_path).validate(module, letters("abcd"), ckpt_path=trained, verbose=False)
    fewer = letters("abc")  # whose characters alone are four
    (figures,) = trainer(tmp_path).validate(module, fewer, ckpt_path=trained, verbose=False)
    assert len(fewer.vocabulary) == 5
    assert trainer(tmp_path).validate(module, fewer, verbose=False)[0] == figures
    trainer(tmp_path, max_epochs=9).fit(untrained(), datamodule=letters("abc"), ckpt_path=trained)
    trainer(tmp_path).predict(module, letters("abc"), ckpt_path=trained)
    with pytest.raises(ValueError, match="the net has 5 tokens and the text 4: set vocab_size=4"):
        trainer(tmp_path).validate(module, letters("abc"), verbose=False)
    assert own["val/bits_per_character"] < 1 < figures["val/bits_per_character"]
    with pytest.raises(ValueError, match="line 1, has 'g', which is none of the 5 characters of the checkpoint's"):
        trainer(tmp_path).validate(module, letters("gbcd"), ckpt_path=trained, verbose=False)


def test_a_validation_in_mid_epoch_leaves_the_carried_state_alone(tmp_path: Path) -> None:
    """Rows of equal number would otherwise go on in the text of the validation."""

    def trained(folder: str, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = LanguageModel(RecurrentLM(256, dim=8, hidden=16), carry_state=True, sample_tokens=0)
        data = text_data(tmp_path, order="streams", batch_size=4, eval_batch_size=4)
        trainer(tmp_path / folder, max_epochs=1, num_sanity_val_steps=0, **options).fit(module, datamodule=data)
        return module.net.state_dict()

    alone, measured = trained("alone", limit_val_batches=0), trained("measured", val_check_interval=2)
    assert all(torch.equal(alone[key], measured[key]) for key in alone)


def test_a_loss_that_is_not_finite_is_no_mean_of_the_others(tmp_path: Path) -> None:
    data, module = text_data(tmp_path), small_lm(sample_tokens=0)
    with torch.no_grad():
        module.net.embedding.weight[ord("9")] = float("nan")  # windows without this character are finite
    run = trainer(tmp_path)
    run.validate(module, datamodule=data, verbose=False)
    assert math.isnan(float(run.callback_metrics["val/loss"]))
    assert math.isnan(float(run.callback_metrics["val/perplexity"]))
