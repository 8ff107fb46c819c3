"""Promises of every listener block; a new block is held to them by being in the union."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from spelldown.errors import SpelldownError
from spelldown.model.lengths import Real, mask_of, reversed_within
from spelldown.model.listening.block import Block
from spelldown.model.listening.blocks import (
    BiLSTMSettings,
    BlockSettings,
    ConvSettings,
    MobileSettings,
    PyramidSettings,
    TransformerSettings,
)
from spelldown.model.listening.listener import Listener, ListenerSettings
from spelldown.model.listening.normalisation import BatchNorm

WIDTH = 6
SMALL: dict[str, dict[str, object]] = {
    "conv": dict(widths=(8, 4), stride=(2, 1), dropout=0.0),
    "mobile": dict(width=8, stem=4, stages=((1, 4, 1, 1), (2, 4, 2, 2)), norm="layer"),
    "bilstm": dict(width=4, layers=2, dropout=0.0),
    "pyramid": dict(width=4, layers=2, dropout=0.0),
    "transformer": dict(width=8, heads=2, layers=2, dropout=0.0),
}
KINDS = [kind.model_fields["kind"].default for kind in get_args(get_args(BlockSettings)[0])]


def block_of(kind: str, **changes: object) -> Block:
    """A small block of this kind in float64, so that equal means equal."""
    kinds = {k.model_fields["kind"].default: k for k in get_args(get_args(BlockSettings)[0])}
    torch.manual_seed(0)
    block: Block = kinds[kind](**{**SMALL[kind], **changes}).build(WIDTH).double()
    return block


def padded(lengths: Tensor, longest: int) -> Tensor:
    torch.manual_seed(1)
    frames = torch.randn(len(lengths), longest, WIDTH, dtype=torch.float64)
    return frames.masked_fill(~mask_of(lengths, longest)[:, :, None], 0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_is_heard_the_same_alone_or_padded_in_a_batch(
    kind: str, training: bool
) -> None:
    block = block_of(kind).train(training)
    lengths = torch.tensor([11, 7, 1])
    frames = padded(lengths, 14)
    together, heard = block(frames, lengths)
    assert heard.tolist() == block.output_lengths(lengths).tolist()
    for i, length in enumerate(lengths.tolist()):
        alone, own = block(frames[i : i + 1, :length], lengths[i : i + 1])
        assert int(own) == int(heard[i]) == alone.shape[1]
        torch.testing.assert_close(together[i, : int(own)], alone[0])


@pytest.mark.parametrize("kind", KINDS)
def test_padded_frames_come_out_silent(kind: str) -> None:
    lengths = torch.tensor([9, 4])
    output, heard = block_of(kind)(padded(lengths, 12), lengths)
    outside = ~mask_of(heard, output.shape[1])
    assert output.shape[1] >= int(heard.max())
    assert (output[outside] == 0).all()
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_do_not_hear_padding(kind: str) -> None:
    block = block_of(kind)
    length = torch.tensor([6])
    short = padded(length, 6)
    gradients = []
    for frames in (short, torch.cat([short, short.new_zeros(1, 5, WIDTH)], 1)):
        block.zero_grad()
        output, heard = block(frames, length)
        output[:, : int(heard)].square().sum().backward()
        gradients.append([p.grad.clone() for p in block.parameters()])  # type: ignore[union-attr]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_does_not_hear_padding_in_training(kind: str) -> None:
    lengths = torch.tensor([9, 5])
    outputs, statistics = [], []
    for longest in (9, 16):
        block = block_of(kind, norm="batch").train()
        output, heard = block(padded(torch.tensor([9, 5]), 16)[:, :longest], lengths)
        outputs.append(output[:, : int(heard.max())])
        norms = [m for m in block.modules() if isinstance(m, BatchNorm)]
        statistics.append(torch.cat([norm.running_mean for norm in norms]))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*statistics)


def test_batch_norm_agrees_with_torch_where_nothing_is_padded() -> None:
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm1d(5).double()
    rows = torch.randn(7, 5, dtype=torch.float64) * 3 + 1
    torch.testing.assert_close(ours(rows), theirs(rows))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))


def test_a_bilstm_equals_torchs_packed_one() -> None:
    block = BiLSTMSettings(width=4, norm="none").build(WIDTH).double()
    packed = nn.LSTM(WIDTH, 4, batch_first=True, bidirectional=True).double()
    weights = dict(block.ahead[0].state_dict())
    weights |= {f"{name}_reverse": value for name, value in block.back[0].state_dict().items()}
    packed.load_state_dict(weights)
    lengths = torch.tensor([8, 5, 2])
    frames = padded(lengths, 8)
    book = nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(packed(book)[0], batch_first=True)
    torch.testing.assert_close(block(frames, lengths)[0], expected)


def test_a_batch_of_many_lengths_is_heard_in_groups_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = torch.tensor([3, 14, 9, 1, 6, 12, 2])
    frames = padded(lengths, 16)
    outcomes = []
    for worth in (0.0, 1.0):  # always in groups, never in groups
        monkeypatch.setattr("spelldown.model.lengths.WORTH_GROUPING", worth)
        block = block_of("bilstm")
        output, _ = block(frames, lengths)
        gradients = torch.autograd.grad(output.square().sum(), list(block.parameters()))
        outcomes.append((output, *gradients))
    for grouped, whole in zip(*outcomes, strict=True):
        torch.testing.assert_close(grouped, whole)


def test_a_pyramid_halves_time_and_loses_no_frame() -> None:
    block = block_of("pyramid")
    lengths = torch.tensor([5, 4])
    frames = padded(lengths, 5)
    output, heard = block(frames, lengths)
    assert heard.tolist() == [3, 2] and output.shape[1] == 3
    changed = frames.clone()
    changed[0, 4] += 1  # the odd last frame is heard
    assert not torch.equal(block(changed, lengths)[0][0], output[0])


def test_reversing_twice_gives_the_frames_back() -> None:
    lengths = torch.tensor([5, 3])
    frames = torch.arange(10.0).view(2, 5, 1)
    back = reversed_within(frames, lengths)
    assert back[:, :, 0].tolist() == [[4, 3, 2, 1, 0], [7, 6, 5, 8, 9]]
    assert torch.equal(reversed_within(back, lengths), frames)


def test_rows_of_real_frames_go_back_to_their_places_with_their_gradients() -> None:
    real = Real(mask_of(torch.tensor([3, 1]), 4))
    frames = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: real.frames(real.rows(x).tanh()), frames)
    assert torch.autograd.gradcheck(
        lambda x: reversed_within(x, torch.tensor([3, 1])) * torch.arange(4)[:, None], frames
    )


def test_locked_dropout_drops_the_same_units_at_every_frame() -> None:
    block = ConvSettings(widths=(64,), kernel=1, dropout=0.5, norm="none").build(WIDTH).train()
    output, _ = block(torch.ones(2, 9, WIDTH), torch.tensor([9, 9]))
    dropped = output == 0
    assert dropped.any() and not dropped.all()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])


def test_dropout_after_the_block_leaves_the_layers_within_alone() -> None:
    frames, lengths = torch.randn(2, 9, WIDTH, dtype=torch.float64), torch.tensor([9, 9])
    dropped = block_of("bilstm", layers=3, dropout=0.5, dropout_after="block").train()
    whole = block_of("bilstm", layers=3, dropout=0.0)
    output, _ = dropped(frames, lengths)
    kept = output != 0
    torch.testing.assert_close(output[kept], 2 * whole(frames, lengths)[0][kept])


def test_a_listener_chains_blocks_and_knows_its_reduction() -> None:
    blocks = (
        ConvSettings(widths=(8,), stride=2), PyramidSettings(width=4),
        TransformerSettings(width=8, heads=2),
    )  # fmt: skip
    listener = Listener(ListenerSettings(blocks=blocks), WIDTH)
    lengths = torch.tensor([13, 1])
    frames, heard = listener(torch.randn(2, 13, WIDTH), lengths)
    assert (listener.reduction, listener.output_width) == (4, 8)
    assert heard.tolist() == listener.output_lengths(lengths).tolist() == [4, 1]
    assert frames.shape == (2, 4, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: ConvSettings(kernel=4), "odd"),
        (lambda: ConvSettings(widths=(4, 4), stride=(2,)), "1 strides for 2 layers"),
        (lambda: TransformerSettings(width=10, heads=4), "4 heads cannot share a width of 10"),
        (lambda: MobileSettings(stages=((1, 0, 1, 1),)), "1 or more"),
    ],
)
def test_impossible_blocks_say_what_would_be_right(settings, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, SpelldownError), match=message):
        settings()
