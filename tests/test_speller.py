"""The speller: its fast path is its own step by step, and padding is silent."""

import gc

import pytest
import torch
from torch import Tensor

from spelldown.model.listening.blocks import BiLSTMSettings, PyramidSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import CTCSettings, Memory, Recognizer
from spelldown.model.spelling.attention import (
    AdditiveSettings,
    AttentionSettings,
    CosineSettings,
    DotSettings,
    LocationSettings,
)
from spelldown.model.spelling.cell import Cell
from spelldown.model.spelling.speller import Feedback, Speller, SpellerSettings

ATTENTIONS: dict[str, AttentionSettings] = {
    "dot": DotSettings(width=8, heads=2, values=6),
    "cosine": CosineSettings(width=8, heads=2),
    "additive": AdditiveSettings(width=8, values=6, heads=2),
    "location": LocationSettings(width=8, heads=2, channels=3, reach=2),
    "location of the last step": LocationSettings(width=8, channels=3, reach=2, past="last"),
}
FEEDBACKS = {
    "teacher forcing": Feedback(),
    "own best": Feedback(rate=0.5),
    "own draws, one coin a batch": Feedback(0.5, "batch", "sample", 1.3),
}
LISTENER_WIDTH, VOCABULARY = 9, 11


def speller_of(attention: AttentionSettings, **changes: object) -> Speller:
    torch.manual_seed(0)
    sizes: dict[str, object] = dict(embedding=5, width=7, layers=2, distribution_layers=2)
    settings = SpellerSettings.model_validate({**sizes, **changes})
    return Speller(settings, attention, LISTENER_WIDTH, VOCABULARY).double()


def heard() -> tuple[Tensor, Tensor, Tensor]:
    """Listener frames, lengths and references of three utterances, longest sentence last.

    The references are padded further than the longest needs.
    """
    torch.manual_seed(1)
    lengths = torch.tensor([6, 4, 1])
    frames = torch.randn(3, 6, LISTENER_WIDTH, dtype=torch.float64)
    frames[torch.arange(6) >= lengths[:, None]] = 0
    symbols = torch.randint(3, VOCABULARY, (3, 9))
    symbols[:, 0] = 1
    symbols[0, 4:], symbols[1, 6:], symbols[2, 8:] = 0, 0, 0
    return frames, lengths, symbols


@pytest.mark.parametrize("settings", [
    dict(dropout=0.3, embedding_dropout=0.2), dict(dropout=0.3, locked=False, tied=False),
    dict(layers=1, distribution_layers=0), dict(layers=3, distribution_layers=1, initial="scaled"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("feedback", FEEDBACKS.values(), ids=FEEDBACKS.keys())
@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_the_fast_path_equals_its_own_steps_in_values_and_gradients(
    attention: AttentionSettings, feedback: Feedback, settings: dict[str, object]
) -> None:
    speller = speller_of(attention, **settings).train()
    frames, lengths, symbols = heard()
    frames.requires_grad_()
    order = torch.tensor([2, 1, 0])  # longest sentence first
    projected = speller.attention.project(frames, lengths).select(order)
    results = []
    for path in (speller.fast, speller.stepwise):
        torch.manual_seed(2)
        loop = speller.loop(symbols[order, :-1], torch.tensor([7, 5, 3]), feedback)
        logits, weights, fed = path(projected, loop)
        real = torch.arange(3) < torch.tensor(loop.active)[:, None]
        parameters = [frames, *speller.parameters()]
        pull = torch.sin(torch.arange(logits.numel(), dtype=logits.dtype)).view(logits.shape)
        asked = (logits * pull).sum()
        gradients = torch.autograd.grad(asked, parameters, retain_graph=True, allow_unused=True)
        results.append((logits, weights[real], fed[real], *gradients))
    for fast, slow in zip(*results, strict=True):
        if fast is None or slow is None:
            assert fast is slow
        else:
            torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_a_whole_reference_equals_the_steps_that_search_takes(
    attention: AttentionSettings,
) -> None:
    speller = speller_of(attention).eval()
    frames, lengths, symbols = heard()
    logits, weights, _ = speller(frames, lengths, symbols, Feedback())
    state = speller.start(frames, lengths)
    for i in range(symbols.shape[1] - 1):
        log_probs, state = speller.step(symbols[:, i], state)
        spelling = symbols[:, i + 1] != 0
        torch.testing.assert_close(logits[spelling, i].log_softmax(1), log_probs[spelling])
        torch.testing.assert_close(weights[spelling, :, i], state.weights[spelling])


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_an_utterance_is_spelled_the_same_alone_or_padded_in_a_batch(
    attention: AttentionSettings,
) -> None:
    speller = speller_of(attention).eval()
    frames, lengths, symbols = heard()
    together, weights, _ = speller(frames, lengths, symbols, Feedback())
    for i, length in enumerate(lengths.tolist()):
        steps = int((symbols[i, 1:] != 0).sum())
        own = symbols[i : i + 1, : steps + 1]
        alone, looked, _ = speller(frames[i : i + 1, :length], lengths[i : i + 1], own, Feedback())
        torch.testing.assert_close(together[i, :steps], alone[0])
        torch.testing.assert_close(weights[i, :, :steps, :length], looked[0])
        assert (weights[i, :, :, length:] == 0).all()
        assert (together[i, steps:] == 0).all()


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_a_second_backward_pass_gives_the_same_gradients(attention: AttentionSettings) -> None:
    speller = speller_of(attention)
    frames, lengths, symbols = heard()
    asked = speller(frames, lengths, symbols, Feedback())[0].square().sum()
    parameters = list(speller.parameters())
    first = torch.autograd.grad(asked, parameters, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(asked, parameters), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_gradients_can_be_taken_inside_autocast(attention: AttentionSettings) -> None:
    speller = speller_of(attention).float()
    frames, lengths, symbols = heard()
    with torch.autocast("cpu", torch.bfloat16):
        asked = speller(frames.float(), lengths, symbols, Feedback())[0].float().square().sum()
        gradients = torch.autograd.grad(asked, list(speller.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_update_leaves_nothing_behind_for_the_garbage_collector() -> None:
    speller = speller_of(ATTENTIONS["location"]).float()
    frames, lengths, symbols = heard()
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            asked = speller(frames.float(), lengths, symbols, Feedback())[0].sum()
            torch.autograd.grad(asked, list(speller.parameters()))
            del asked
        kept = [one for one in gc.get_objects() if type(one).__name__ == "_Saved"]
    finally:
        gc.enable()
    assert kept == []


def test_the_distribution_network_can_drop_by_itself() -> None:
    speller = speller_of(ATTENTIONS["dot"], dropout=0.0, distribution_dropout=0.5).train()
    frames, lengths, symbols = heard()
    torch.manual_seed(7)
    once, weights, _ = speller(frames, lengths, symbols, Feedback())
    again, same, _ = speller(frames, lengths, symbols, Feedback())
    assert not torch.equal(once, again)
    assert torch.equal(weights, same)  # the cells drop nothing


def test_every_attention_gives_weights_that_sum_to_one() -> None:
    frames, lengths, symbols = heard()
    for attention in ATTENTIONS.values():
        _, weights, _ = speller_of(attention)(frames, lengths, symbols, Feedback())
        sums = weights.sum(3).transpose(1, 2)[symbols[:, 1:] != 0]
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_feedback_feeds_the_spellers_own_symbols_where_the_coin_says_so() -> None:
    speller = speller_of(ATTENTIONS["dot"]).eval()
    frames, lengths, symbols = heard()
    logits, _, fed = speller(frames, lengths, symbols, Feedback(rate=0.0))
    assert torch.equal(fed[:, 0], symbols[:, 0])
    for i in range(1, fed.shape[1]):
        spelling = symbols[:, i + 1] != 0
        best = logits[spelling, i - 1, 2:].argmax(1) + 2
        assert torch.equal(fed[spelling, i], best)


def test_one_coin_a_batch_is_shared_and_one_an_utterance_is_not() -> None:
    speller = speller_of(ATTENTIONS["dot"])
    symbols = torch.ones(8, 40, dtype=torch.long)
    counts = torch.full((8,), 40)
    torch.manual_seed(3)
    shared = speller.loop(symbols, counts, Feedback(0.5, "batch")).forced
    own = speller.loop(symbols, counts, Feedback(0.5, "utterance")).forced
    assert (shared == shared[:, :1]).all() and not (own == own[:, :1]).all()
    assert shared[0].all() and own[0].all()
    assert 0.3 < own[1:].double().mean() < 0.7


def test_sampled_feedback_follows_the_spellers_distribution() -> None:
    speller = speller_of(ATTENTIONS["dot"])
    counts = torch.full((4000,), 2)
    torch.manual_seed(4)
    loop = speller.loop(torch.ones(4000, 2, dtype=torch.long), counts, Feedback(0.0, draw="sample"))
    logits = torch.linspace(-1, 1, VOCABULARY).expand(4000, -1)
    drawn = loop.draw(1, logits)[1]
    shares = torch.bincount(drawn, minlength=VOCABULARY) / 4000
    assert shares[:2].sum() == 0  # <pad> and <sos> are never spelled
    assert (shares[2:] - logits[0, 2:].softmax(0)).abs().max() < 0.02


def test_gumbel_feedback_carries_a_gradient_through_the_fed_mixture() -> None:
    frames, lengths, symbols = heard()
    gradients = []
    for draw in ("argmax", "gumbel"):
        speller = speller_of(ATTENTIONS["dot"], tied=False)
        torch.manual_seed(5)
        logits, _, _ = speller(frames, lengths, symbols, Feedback(0.0, draw=draw))
        # The last symbol's logits reach the projection of earlier steps only by what was fed.
        last = torch.autograd.grad(logits[0, 2].square().sum(), logits, retain_graph=True)[0]
        assert last[0, 2].abs().sum() > 0
        asked = logits[0, 2, 0] - logits[0, 2, 1]
        bias = speller.distribution.projection.bias  # type: ignore[union-attr]
        gradients.append(torch.autograd.grad(asked, bias)[0])
    plain, mixed = gradients
    assert plain.count_nonzero() == 2  # the two logits asked for, and nothing earlier
    assert mixed.count_nonzero() > 2


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_gumbel_feedback_has_the_gradient_of_what_it_computes(
    attention: AttentionSettings,
) -> None:
    speller = speller_of(attention).eval()
    heard_frames, lengths, symbols = heard()
    names, weights = zip(*speller.named_parameters(), strict=True)
    feedback = Feedback(0.3, draw="gumbel", temperature=0.8)

    def logits(frames: Tensor, *values: Tensor) -> Tensor:
        torch.manual_seed(7)  # the same coins and noise every time
        given = dict(zip(names, values, strict=True))
        found = torch.func.functional_call(speller, given, (frames, lengths, symbols, feedback))
        return found[0]  # type: ignore[no-any-return]

    heard_frames.requires_grad_()
    assert torch.autograd.gradcheck(logits, (heard_frames, *weights), fast_mode=True)


def test_embedding_dropout_blanks_whole_symbols_and_only_in_training() -> None:
    speller = speller_of(ATTENTIONS["dot"], embedding_dropout=0.5)
    torch.manual_seed(6)
    blank = (speller.train()._dropped_embedding() == 0).all(1)
    assert 0 < blank.sum() < VOCABULARY
    assert torch.equal(speller.eval()._dropped_embedding(), speller.embedding.weight)


def test_cell_weights_start_uniform_within_a_tenth() -> None:
    speller = speller_of(ATTENTIONS["dot"], width=64)
    for cell in speller.cells:
        assert isinstance(cell, Cell)
        assert cell.weight.abs().max() <= 0.1 and cell.weight.std() > 0.05
        assert cell.bias.abs().max() <= 0.1


def test_selecting_states_reorders_and_repeats_hypotheses() -> None:
    speller = speller_of(ATTENTIONS["location"]).eval()
    frames, lengths, _ = heard()
    rows = torch.tensor([2, 0, 0])
    first = torch.tensor([1, 1, 1])
    log_probs, state = speller.step(first, speller.start(frames, lengths))
    again, _ = speller.step(torch.tensor([4, 5, 6]), state.select(rows))
    straight, _ = speller.step(torch.tensor([5, 1, 4]), state)
    other, _ = speller.step(torch.tensor([6, 1, 1]), state)
    torch.testing.assert_close(again, torch.stack([straight[2], straight[0], other[0]]))
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(3, dtype=torch.float64))


def recognizer(ctc: bool = True) -> Recognizer:
    torch.manual_seed(0)
    blocks = (BiLSTMSettings(width=4), PyramidSettings(width=4))
    return Recognizer(
        ListenerSettings(blocks=blocks), ATTENTIONS["location"],
        SpellerSettings(embedding=5, width=7), CTCSettings() if ctc else None,
        input_width=3, vocabulary=VOCABULARY,
    )  # fmt: skip


def test_a_recognizer_gives_what_its_losses_need() -> None:
    frames, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    symbols = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    spelled = recognizer()(frames, lengths, symbols)
    assert spelled.logits.shape == (2, 3, VOCABULARY) and spelled.logits.dtype == torch.float32
    assert spelled.weights.shape == (2, 2, 3, 5) and spelled.fed.shape == (2, 3)
    assert spelled.memory_lengths.tolist() == [5, 3]
    assert spelled.ctc_logits.shape == (2, 5, VOCABULARY)
    assert recognizer(ctc=False)(frames, lengths, symbols).ctc_logits is None


def test_bfloat16_products_stay_close_to_float32() -> None:
    torch.manual_seed(0)
    model = recognizer()
    frames, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    symbols = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    exact = model(frames, lengths, symbols)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(frames, lengths, symbols)
    assert rounded.logits.dtype == torch.float32
    torch.testing.assert_close(rounded.logits, exact.logits, rtol=0.05, atol=0.02)
    rounded.logits.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("share", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("settings", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_attention_is_exact_whatever_products_are_rounded_to(
    settings: AttentionSettings, share: bool
) -> None:
    attention = speller_of(settings).float().attention
    frames, lengths, _ = heard()
    projected = attention.project(frames.float(), lengths)
    query, past = torch.randn(3, settings.width), torch.rand(3, settings.heads, 6)
    found = []
    for rounding in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=rounding):
            kernel = attention.kernel(projected)
            found.append((kernel.share(1) if share else kernel).attend(query, past))
    for exact, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=1e-7)


def test_nothing_is_kept_on_the_recognizer_between_calls() -> None:
    model = recognizer().eval()
    frames, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    memory = model.listen(frames, lengths)
    other = Memory(memory.frames.flip(0), memory.lengths.flip(0))
    start = torch.tensor([1, 1])
    before, _ = model.step(start, model.start(memory))
    model.step(start, model.start(other))
    after, _ = model.step(start, model.start(memory))
    assert torch.equal(before, after)
