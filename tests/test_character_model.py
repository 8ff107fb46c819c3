"""A character model: its steps are its reading of whole texts, and a speller that hears nothing."""

import pytest
import torch
from torch import Tensor

from spelldown.model.listening.blocks import BiLSTMSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.attention import DotSettings, LocationSettings
from spelldown.model.spelling.character_model import CharacterModel, probabilities
from spelldown.model.spelling.speller import Speller, SpellerSettings

VOCABULARY, CONTEXT = 9, 6


def settings_of(**changes: object) -> SpellerSettings:
    sizes: dict[str, object] = dict(embedding=5, width=7, layers=2, distribution_layers=2)
    return SpellerSettings.model_validate({**sizes, **changes})


def speller_of(**changes: object) -> Speller:
    torch.manual_seed(0)
    attention = LocationSettings(width=8, values=CONTEXT, heads=2, channels=3, reach=2)
    return Speller(settings_of(**changes), attention, 4, VOCABULARY).double().eval()


def texts() -> Tensor:
    """Three sentences, the second and third shorter."""
    torch.manual_seed(1)
    symbols = torch.randint(3, VOCABULARY, (3, 8))
    symbols[:, 0] = 1
    symbols[0, 7], symbols[1, 4], symbols[2, 1] = 2, 2, 2
    symbols[1, 5:], symbols[2, 2:] = 0, 0
    return symbols


def models() -> dict[str, CharacterModel]:
    torch.manual_seed(2)
    speller, mean = speller_of(), torch.randn(CONTEXT, dtype=torch.float64)
    one_cell = speller_of(layers=1, distribution_layers=0, tied=False)
    return {
        "of its own": CharacterModel.new(settings_of(), VOCABULARY).double().eval(),
        "of its own, not tied": CharacterModel.new(settings_of(tied=False), VOCABULARY)
        .double()
        .eval(),
        "speller, zero": CharacterModel.of(speller, "zero").eval(),
        "speller, mean": CharacterModel.of(speller, "mean", mean).eval(),
        "one cell, mean": CharacterModel.of(one_cell, "mean", mean).eval(),
    }


def stepped(model: CharacterModel, symbols: Tensor) -> Tensor:
    """Log-probabilities (B, L-1, V), one symbol after the other."""
    state, found = model.start(len(symbols)), []
    for fed in symbols[:, :-1].unbind(1):
        log_probs, state = model.step(fed, state)
        found.append(log_probs)
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", models())
def test_step_by_step_is_what_whole_texts_give(name: str) -> None:
    model, symbols = models()[name], texts()
    whole = probabilities(model(symbols))
    assert torch.allclose(stepped(model, symbols), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", models())
def test_step_by_step_has_the_gradients_of_whole_texts(name: str) -> None:
    model, symbols = models()[name], texts()
    gradients = []
    for read in (probabilities(model(symbols)), stepped_by_cells(model, symbols)):
        loss = read[:, :, 2:].square().sum()
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients.append(dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)))
    for parameter, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][parameter], rtol=1e-9, atol=1e-12), parameter


def stepped_by_cells(model: CharacterModel, symbols: Tensor) -> Tensor:
    """The definition: each cell's own step under autograd, with the contexts written out."""
    batch, width = len(symbols), model.settings.width
    hidden = [symbols.new_zeros(batch, width, dtype=torch.float64)] * len(model.cells)
    cells, found = list(hidden), []
    context = symbols.new_zeros(batch, model.width, dtype=torch.float64)
    for fed in symbols[:, :-1].unbind(1):
        inputs = torch.cat([model.embedding(fed), context], 1)
        for k, cell in enumerate(model.cells):
            hidden[k], cells[k] = cell(inputs, hidden[k], cells[k])
            inputs = hidden[k]
        if model.mean is not None:
            context = model.mean.expand(batch, -1)
        features = torch.cat([inputs, context], 1)
        found.append(model.distribution(features, model.embedding.weight, dropout=False))
    return probabilities(torch.stack(found, 1))


@pytest.mark.parametrize("name", models())
def test_a_text_is_as_likely_alone_as_beside_longer_ones(name: str) -> None:
    model, symbols = models()[name], texts()
    together = probabilities(model(symbols))
    for row, length in ((1, 5), (2, 2)):
        alone = probabilities(model(symbols[row : row + 1, :length]))
        assert torch.allclose(alone[0], together[row, : length - 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", models())
def test_nothing_is_followed_by_pad_or_sos_and_the_rest_is_certain(name: str) -> None:
    log_probs = stepped(models()[name], texts())
    assert log_probs[:, :, :2].eq(-torch.inf).all()
    assert torch.allclose(log_probs.exp().sum(2), torch.ones(3, 7, dtype=torch.float64))


def test_states_can_be_chosen_repeated_and_left_out() -> None:
    model, symbols = models()["speller, mean"], texts()
    _, state = model.step(symbols[:, 0], model.start(3))
    rows = torch.tensor([2, 0, 0])
    some, _ = model.step(symbols[rows, 1], state.select(rows))
    all_of_them, _ = model.step(symbols[:, 1], state)
    assert torch.allclose(some, all_of_them[rows])


@pytest.mark.parametrize("mean", [False, True], ids=["zero", "mean"])
def test_it_is_the_speller_listening_to_what_always_gives_that_context(mean: bool) -> None:
    """An attention whose values are a constant, whatever is heard, gives that constant."""
    speller, symbols = speller_of(), texts()
    constant = torch.randn(CONTEXT, dtype=torch.float64) if mean else torch.zeros(CONTEXT)
    with torch.no_grad():
        speller.attention.value.weight.zero_()
        speller.attention.value.bias.copy_(constant)
    unheard = CharacterModel.of(speller, "mean", constant) if mean else (
        CharacterModel.of(speller, "zero")
    )  # fmt: skip
    frames = torch.randn(3, 5, 4, dtype=torch.float64)
    state, inner = speller.start(frames, torch.tensor([5, 2, 1])), unheard.eval().start(3)
    for fed in symbols.unbind(1):
        log_probs, state = speller.step(fed, state)
        found, inner = unheard.step(fed, inner)
        expected = log_probs[:, 2:].log_softmax(1)  # it rules <pad> and <sos> out
        assert torch.allclose(found[:, 2:], expected, rtol=0, atol=1e-12)


def test_dropout_is_locked_over_a_text_and_blanks_whole_symbols() -> None:
    torch.manual_seed(0)
    model = CharacterModel.new(settings_of(dropout=0.5, embedding_dropout=0.5), VOCABULARY)
    outputs = torch.ones(6, 3, 7)
    dropped = model.train()._drop(outputs)
    assert dropped.eq(dropped[0]).all() and set(dropped.flatten().tolist()) == {0.0, 2.0}
    free = CharacterModel.new(settings_of(dropout=0.5, locked=False), VOCABULARY).train()
    assert not free._drop(outputs).eq(free._drop(outputs)[0]).all()
    rows = model._dropped_embedding() / model.embedding.weight
    assert all(len(set(row.tolist())) == 1 for row in rows.round(decimals=3))
    symbols = texts()
    assert not torch.equal(model(symbols), model(symbols))
    assert torch.equal(model.eval()(symbols), model(symbols))


def test_random_contexts_are_drawn_in_training_alone() -> None:
    model, symbols = CharacterModel.of(speller_of(), "random", deviation=0.5), texts()
    model.train()
    assert not torch.equal(model(symbols), model(symbols))
    zero = CharacterModel.of(speller_of(), "zero").eval()
    assert torch.equal(model.eval()(symbols), zero(symbols))
    drawn = CharacterModel.of(speller_of(), "random", deviation=0.5).train()._contexts(200, 100)
    assert drawn is not None and drawn.shape == (200, 100, CONTEXT)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)


def test_half_precision_steps_stay_near() -> None:
    torch.manual_seed(0)
    model, symbols = CharacterModel.new(settings_of(), VOCABULARY).eval(), texts()
    with torch.inference_mode():
        exact = stepped(model, symbols)
        with torch.autocast("cpu", torch.bfloat16):
            near, whole = stepped(model, symbols), probabilities(model(symbols))
    assert near.dtype == whole.dtype == torch.float32
    for found in (near, whole):
        assert torch.allclose(found[:, :, 2:], exact[:, :, 2:], atol=0.05)


def test_what_does_not_go_together_is_refused() -> None:
    speller = speller_of()
    for context, mean in (("zero", torch.zeros(CONTEXT)), ("mean", None), ("none", None)):
        with pytest.raises(ValueError, match="context"):
            CharacterModel.of(speller, context, mean)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        CharacterModel.of(speller, "mean", torch.zeros(CONTEXT + 1))


def test_a_recognizer_gives_its_internal_language_model() -> None:
    torch.manual_seed(0)
    listener = ListenerSettings(blocks=(BiLSTMSettings(width=4),))
    recognizer = Recognizer(
        listener, DotSettings(width=8), settings_of(), None, input_width=3, vocabulary=VOCABULARY
    ).eval()
    symbols = texts()
    found = stepped(recognizer.without_listening("zero"), symbols)
    expected = probabilities(CharacterModel.of(recognizer.speller, "zero").eval()(symbols))
    assert torch.allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="mean_context"):
        recognizer.without_listening("mean")
    recognizer.mean_context = torch.ones(8)
    by_mean = stepped(recognizer.without_listening("mean"), symbols)
    assert not torch.allclose(by_mean, found, atol=1e-3)
    assert "mean_context" not in recognizer.state_dict()
