"""Promises of every listener block; a new block is held to them by being in the union."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from spelldown.errors import SpelldownError
from spelldown.model.dropout import drop
from spelldown.model.lengths import Real, Stairs, flights_of, mask_of
from spelldown.model.listening.block import Block
from spelldown.model.listening.blocks import (
    BiLSTMSettings,
    BlockSettings,
    Conv2dSettings,
    ConvSettings,
    MobileSettings,
    PyramidSettings,
    TransformerSettings,
)
from spelldown.model.listening.convolution import _Convolution
from spelldown.model.listening.image import Conv2d
from spelldown.model.listening.listener import Listener, ListenerSettings
from spelldown.model.listening.normalisation import BatchNorm

WIDTH = 6
SMALL: dict[str, dict[str, object]] = {
    "conv": dict(widths=(8, 4), stride=(2, 1), dropout=0.0),
    "conv2d": dict(width=8, maps=(4, 3), stride=(2, 1), copies=2, dropout=0.0),
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


@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_batch_of_many_lengths_is_heard_in_flights_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    lengths = torch.tensor([3, 14, 9, 1, 6, 12, 2])
    frames = padded(lengths, 16).requires_grad_()
    outcomes = []
    for flights in (1, most):
        monkeypatch.setattr("spelldown.model.lengths.FLIGHTS", flights)
        assert len(Stairs(lengths).flights) == min(flights, 7)
        block = block_of("bilstm")
        output, _ = block(frames, lengths)
        gradients = torch.autograd.grad(output.square().sum(), [frames, *block.parameters()])
        outcomes.append((output, *gradients))
    for cut, whole in zip(*outcomes, strict=True):
        torch.testing.assert_close(cut, whole)


def test_a_pyramid_halves_time_and_loses_no_frame() -> None:
    block = block_of("pyramid")
    lengths = torch.tensor([5, 4])
    frames = padded(lengths, 5)
    output, heard = block(frames, lengths)
    assert heard.tolist() == [3, 2] and output.shape[1] == 3
    changed = frames.clone()
    changed[0, 4] += 1  # the odd last frame is heard
    assert not torch.equal(block(changed, lengths)[0][0], output[0])


def test_stairs_leave_out_utterances_that_have_ended() -> None:
    lengths = torch.tensor([2, 6, 4, 6])
    stairs = Stairs(lengths)
    assert stairs.flights == [(2, 4), (2, 3), (2, 2)] and stairs.total == int(lengths.sum())
    rows = torch.arange(18.0)[:, None]
    ahead, back = stairs.climb(rows, backwards=False), stairs.climb(rows, backwards=True)
    assert ahead[:4, 0].tolist() == [2, 12, 8, 0]  # the first frames, longest utterance first
    assert back[:4, 0].tolist() == [7, 17, 11, 1]  # their last frames
    assert torch.equal(stairs.descend(ahead, backwards=False), rows)
    assert torch.equal(stairs.descend(back, backwards=True), rows)


def test_utterances_of_similar_length_share_one_flight() -> None:
    assert Stairs(torch.tensor([99, 100, 98, 97])).flights == [(100, 4)]
    assert Stairs(torch.tensor([5])).flights == [(5, 1)]
    assert len(flights_of([2, 4, 6, 6], torch.device("cpu"))) == 3
    assert flights_of([2, 4, 6, 6], torch.device("cuda")) == [(6, 4)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 1), (3, 2), (5, 3)])
def test_a_convolution_end_to_end_equals_torchs_over_each_utterance(
    kernel: int, stride: int, groups: int
) -> None:
    ours = _Convolution(4, 6, kernel, stride, groups).double()
    lengths = torch.tensor([5, 1, 8])
    rows = torch.randn(14, 4, dtype=torch.float64, requires_grad=True)
    heard, reduced = ours(rows, lengths)
    expected = [
        functional.conv1d(part.t()[None], ours.weight, None, stride, kernel // 2, groups=groups)
        for part in torch.split(rows, lengths.tolist())
    ]
    assert reduced.tolist() == [part.shape[2] for part in expected]
    torch.testing.assert_close(heard, torch.cat([part[0].t() for part in expected]))
    assert torch.autograd.gradcheck(
        lambda rows, weight: functional_call(ours, {"weight": weight}, (rows, lengths))[0],
        (rows, ours.weight),
    )


def test_rows_of_real_frames_go_back_to_their_places_with_their_gradients() -> None:
    real = Real(mask_of(torch.tensor([3, 1]), 4))
    frames = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: real.frames(real.rows(x).tanh()), frames)
    stairs = Stairs(torch.tensor([3, 1]))
    for backwards in (False, True):
        assert torch.autograd.gradcheck(
            lambda x, b=backwards: stairs.descend(stairs.climb(real.rows(x), b).tanh(), b), frames
        )


def test_dropout_leaves_the_mean_alone_and_scales_what_it_keeps() -> None:
    torch.manual_seed(0)
    units = torch.ones(200, 200, requires_grad=True)
    dropped = drop(units, 0.3, training=True)
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.01
    torch.testing.assert_close(torch.unique(dropped[dropped != 0]), torch.tensor([1 / 0.7]))
    torch.autograd.backward(dropped.sum())
    assert units.grad is not None and torch.equal(units.grad, dropped.detach())
    assert drop(units, 0.3, training=False) is units


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


def test_an_image_of_bands_is_convolved_as_torch_convolves_it() -> None:
    block = Conv2dSettings(width=5, maps=(3,), stride=2, band_stride=3, norm="none").build(WIDTH)
    assert isinstance(block, Conv2d)
    frames = torch.randn(1, 7, WIDTH)
    weight = block.get_parameter("layers.0.weight")
    image = functional.conv2d(frames[:, None], weight, stride=(2, 3), padding=1)  # (1, C, T, F)
    rows = functional.gelu(image)[0].permute(1, 2, 0).flatten(1)
    output, lengths = block(frames, torch.tensor([7]))
    torch.testing.assert_close(output[0], block.head(rows))
    assert lengths.tolist() == [4]


def test_copies_of_the_bands_are_maps_of_one_image() -> None:
    block = Conv2dSettings(width=5, maps=(3,), copies=2, norm="none").build(WIDTH)
    assert isinstance(block, Conv2d)
    bands, differences = torch.randn(2, 1, 5, WIDTH // 2)
    image = torch.stack([bands, differences], 1)
    weight = block.get_parameter("layers.0.weight")
    heard = functional.gelu(functional.conv2d(image, weight, stride=2, padding=1))
    output, _ = block(torch.cat([bands, differences], 2), torch.tensor([5]))
    torch.testing.assert_close(output[0], block.head(heard[0].permute(1, 2, 0).flatten(1)))


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
        (lambda: Conv2dSettings(kernel=2), "odd"),
        (lambda: Conv2dSettings(band_stride=(2,)), "band_stride: 1 for 2 layers"),
        (lambda: Conv2dSettings(maps=(4, 0)), "1 or more"),
        (lambda: Conv2dSettings(copies=4).build(WIDTH), "6 numbers cannot be 4 copies"),
        (lambda: TransformerSettings(width=10, heads=4), "4 heads cannot share a width of 10"),
        (lambda: MobileSettings(stages=((1, 0, 1, 1),)), "1 or more"),
    ],
)
def test_impossible_blocks_say_what_would_be_right(settings, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, SpelldownError), match=message):
        settings()
