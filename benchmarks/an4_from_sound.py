"""AN4 from sound: are our cepstra the published ones, and does a run trained on those spell ours?

AN4 is published as recordings, and as 13 cepstra that the makers' tool computed from them. This
compares our own cepstra of some of its recordings (SPHERE files with `text`: utterance, tab, words)
with the published arrays, each coefficient normalised over the utterance as recipes do:

    python benchmarks/an4_from_sound.py --audio ../shared/data/an4-audio --arrays ../shared/data/an4

and, with a run trained on the published arrays, spells them both ways (`--run runs/an4-1`). The
settings of the front end are tried around those that Sphinx documents; the nearest counts.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spelldown.data.frontend import Frontend, MfccSettings, normalised
from spelldown.data.recordings import read_audio
from spelldown.recipe.run import load_run
from spelldown.search.metrics import score
from spelldown.search.transcribing.transcript import Item, Transcript

LOWEST, HIGHEST, FILTERS = (20.0, 130.0, 200.0), (6800.0, 7600.0), (31, 40)


def main() -> None:
    asked = arguments()
    said = dict(line.split("\t") for line in (asked.audio / "text").read_text().splitlines())
    published = {name: array_of(asked.arrays, name) for name in said}
    tried = [
        (settings, *compared(settings, asked.audio, published))
        for settings in (
            MfccSettings(lowest=lowest, highest=highest, filters=filters)
            for lowest, highest, filters in product(LOWEST, HIGHEST, FILTERS)
        )
    ]
    settings, distance, correlation, ours = min(tried, key=lambda one: one[1])
    found: dict[str, Any] = {
        "recordings": len(said),
        "settings": settings.model_dump(include={"lowest", "highest", "filters"}),
        "rms_difference": distance,
        "rms_difference_of_the_defaults": compared(MfccSettings(), asked.audio, published)[0],
        "correlation": correlation,
    }
    if asked.run is not None:
        found |= spelled(asked.run, said, published, ours)
    print(json.dumps(found, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--audio", type=Path, required=True, help="the recordings and `text`")
    parser.add_argument("--arrays", type=Path, required=True, help="the published cepstra")
    parser.add_argument("--run", type=Path, help="trained on them: spells both")
    return parser.parse_args()


def array_of(root: Path, name: str) -> torch.Tensor:
    """The published cepstra (T, 13) of a recording, in whichever part they are."""
    (path,) = root.glob(f"*/mfcc/*-{name}.npy")
    return torch.from_numpy(np.load(path))


def compared(
    settings: MfccSettings, audio: Path, published: dict[str, torch.Tensor]
) -> tuple[float, list[float], dict[str, torch.Tensor]]:
    """How far our cepstra are from the published ones, in their own deviations; the correlation of
    each coefficient; ours."""
    frontend = Frontend(settings)
    ours, pairs = {}, []
    for name, theirs in published.items():
        samples, rate = read_audio(audio / f"{name}.sph")
        # Our windows are centred on their 10 ms, theirs begin with them: the next, 2.5 ms earlier.
        early = torch.nn.functional.pad(samples, (rate // 400, 0))
        mine = ours[name] = frontend.of_samples(early, rate)[1 : len(theirs) + 1]
        pairs.append((normalised(mine, "mean-variance"), normalised(theirs, "mean-variance")))
    mine, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
    distance = float((mine - theirs).square().mean().sqrt())
    return distance, [round(float(c), 3) for c in (mine * theirs).mean(dim=0)], ours


def spelled(
    run: Path,
    said: dict[str, str],
    published: dict[str, torch.Tensor],
    ours: dict[str, torch.Tensor],
) -> dict[str, Any]:
    """What the run spells of the published cepstra and of ours."""
    transcriber = load_run(run).transcriber
    found: dict[str, Any] = {}
    for source, frames in (("published", published), ("from_sound", ours)):
        items = [Item(name, frames[name]) for name in said]
        texts = [t.text for t in transcriber.transcribe(items) if isinstance(t, Transcript)]
        scores = score(list(said.values()), texts)
        found[source] = {"wer": scores.wer, "cer": scores.cer, "texts": texts}
    return found


if __name__ == "__main__":
    main()
