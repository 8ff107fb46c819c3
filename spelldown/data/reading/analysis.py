"""Log-mel energies and mel-cepstra of waveforms, as Kaldi computes them, on lhotse's layers."""

import torch
from lhotse.features.kaldi.layers import Wav2MFCC, Wav2Win, get_mel_banks
from torch import Tensor

LIFTER = 22  # Kaldi's, on cepstra
LEAST_ENERGY = float(torch.finfo(torch.float32).eps)  # of a band


class Analysis:
    """Log-mel energies of waveforms, or their cepstra where `width` says how many.

    rate: samples a second; span: Hz from which to which the `bands` mel bands lie; window, shift:
    seconds that a frame sees, and that each moves on by
    """

    def __init__(
        self,
        rate: int,
        span: tuple[float, float],
        bands: int,
        width: int | None,
        *,
        window: float,
        shift: float,
    ) -> None:
        size = 1 << (round(window * rate) - 1).bit_length()
        self._windows = Wav2Win(rate, window, shift, pad_length=size).eval()
        banks, _ = get_mel_banks(bands, size, rate, *span)
        self._bands = torch.nn.functional.pad(banks, (0, 1)).T.double().contiguous()
        self._cepstra: Tensor | None = None
        if width is not None:
            transform = Wav2MFCC.make_dct_matrix(width, bands)
            self._cepstra = (transform * Wav2MFCC.make_lifter(width, LIFTER)).double()

    def frames(self, samples: Tensor) -> Tensor:
        """(N,) float32 -> (T, bands or width) float64."""
        with torch.no_grad():
            windows, _ = self._windows(samples.unsqueeze(0))
            spectrum = torch.fft.rfft(windows.squeeze(0), dim=-1)
            power = spectrum.real.square() + spectrum.imag.square()
            energies: Tensor = (power.double() @ self._bands).clamp_min(LEAST_ENERGY).log()
            return energies if self._cepstra is None else energies @ self._cepstra
