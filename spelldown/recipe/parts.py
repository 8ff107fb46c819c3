"""From a recipe to ready parts: the one room where data, model, search and training meet."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache

import torch
from lhotse import CutSet

from spelldown.data.augmenting.frames import Augment
from spelldown.data.batching import Batches
from spelldown.data.cache import cached_part
from spelldown.data.checks import Part, Problem, check_part
from spelldown.data.corpora import AddedSettings, CutsSettings, read_added, read_part
from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.data.loading.mixing import Added, Fading
from spelldown.data.loading.shards import Cached
from spelldown.data.recordings import file_of
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError
from spelldown.model.listening.blocks import BiLSTMSettings, MobileSettings, PyramidSettings
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.recipe import Recipe
from spelldown.training.learning.schedule import ConstantRate, CosineRate, PlateauRate
from spelldown.training.learning.settings import Learning
from spelldown.training.learning.teacher_forcing import AfterAlignmentForcing, ConstantForcing
from spelldown.training.memory import keep_few_kernels
from spelldown.training.remedies import MOST_DROPOUT

CACHE = "cache"  # in a corpus's folder: frames, unless the recipe names another place


@dataclass(frozen=True)
class Parts:
    """What training needs, built from one recipe; `problems` are the utterances left out."""

    recipe: Recipe
    vocabulary: Vocabulary
    recognizer: Recognizer
    train: Batches
    dev: Batches
    problems: tuple[Problem, ...]


def build_parts(
    recipe: Recipe, vocabulary: Vocabulary | None = None, caching: bool = True
) -> Parts:
    """Reads the corpus and builds everything that training needs.

    `vocabulary` is that of a run that goes on; without one it is made as the recipe says. Frames
    that the recipe wants cached are made, if need be, unless `caching` is False: they are then
    made when they are asked for. Recordings that making them finds damaged are left out, if
    data.problems says so. Raises DataError where the corpus cannot be used.
    """
    train, dev = (read_part(recipe.data, name) for name in (recipe.data.train, recipe.data.dev))
    added = read_added(recipe.data, train)
    if vocabulary is None:
        texts = [text for part in (train, *added) for text in part.texts]
        vocabulary = recipe.vocabulary.build(texts)
    recognizer = build_recognizer(recipe, len(vocabulary))
    heard = [
        checked_part(recipe, part, vocabulary, recognizer, training=True)
        for part in (train, *added)
    ]
    dev = checked_part(recipe, dev)
    kept = kept_dev = None
    if caching:
        heard, kept = _cached(recipe, heard, _augment(recipe))
        (dev,), kept_dev = _cached(recipe, [dev], None)
    return Parts(
        recipe,
        vocabulary,
        recognizer,
        build_batches(recipe, heard[0], vocabulary, True, heard[1:], kept),
        build_batches(recipe, dev, vocabulary, training=False, cached=kept_dev),
        tuple(problem for part in (*heard, dev) for problem in part.problems),
    )


def build_recognizer(recipe: Recipe, symbols: int, device: str = "cpu") -> Recognizer:
    """The recognizer with its first weights, which depend on the recipe's seed alone; on the device
    `meta` it has shapes and no weights."""
    keep_few_kernels()
    width = Frontend(recipe.frontend).output_width  # reckoned with numbers, which `meta` has not
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(recipe.seed)
        return Recognizer(
            recipe.listener,
            recipe.attention,
            recipe.speller,
            recipe.ctc,
            input_width=width,
            vocabulary=symbols,
        )


def checked_part(
    recipe: Recipe,
    part: Part,
    vocabulary: Vocabulary | None = None,
    recognizer: Recognizer | None = None,
    training: bool = False,
) -> Part:
    """A part for training or evaluation: everything with a transcript that this recipe can use.

    What is trained on must be spelled with the `vocabulary`, and by CTC within the frames that the
    `recognizer` makes, in `training` at the fastest speed that augmentation may draw. What is only
    scored need not: left out, it would flatter the score.
    Raises DataError for a part without any transcript, and as `data.problems` has it.
    """
    if len(part.cuts) and not part.texts:
        name = part.name if " of " in part.name else f"{part.name} of {recipe.data.root}"
        raise DataError(
            f"{name} has no transcripts; it can be transcribed "
            "(spelldown transcribe), but not be trained or evaluated on"
        )
    arrays = isinstance(recipe.frontend, ArraysFrontendSettings)
    augment = _augment(recipe) if training else None
    return check_part(
        part,
        recipe.data.problems,
        vocabulary,
        width=recipe.frontend.width if arrays else None,
        output_length=_output_length(recognizer) if recognizer and recipe.loss.uses_ctc else None,
        need_text=True,
        fewest_frames=augment.fewest_frames if augment else None,
        source="frames" if arrays else "recording",
    )


def _augment(recipe: Recipe) -> Augment | None:
    """What changes utterances in training; None where nothing does."""
    return Augment(recipe.augment, Frontend(recipe.frontend)) if recipe.augment else None


def _output_length(recognizer: Recognizer) -> Callable[[int], int]:
    @cache  # a corpus has far fewer lengths than utterances
    def output_length(frames: int) -> int:
        return int(recognizer.listener.output_lengths(torch.tensor([frames])))

    return output_length


def build_batches(
    recipe: Recipe,
    part: Part,
    vocabulary: Vocabulary,
    training: bool,
    added: Sequence[Part] = (),
    cached: Cached | None = None,
) -> Batches:
    """A part as batches; augmented and drawn anew each epoch when `training`.

    added: what training hears too, in the order of data.also. cached: the frames of all of them.
    Raises DataError for added corpora of which no epoch would hear anything.
    """
    frontend, augment = Frontend(recipe.frontend), _augment(recipe) if training else None
    mixed = _mixed(recipe, [(more.name, more.cuts) for more in added])
    pinned = torch.cuda.is_available() and recipe.training.device != "cpu"
    return Batches(
        part.cuts,
        frontend,
        augment,
        vocabulary,
        recipe.batching,
        recipe.seed,
        training,
        mixed,
        cached,
        pinned,
    )


def lasting(recipe: Recipe, train: Batches) -> Batches:
    """The training batches of a recipe, of those of one that has other training.epochs: by them the
    shares of added corpora go. Nothing is read anew."""
    found = copy(train)
    found.added = tuple(_mixed(recipe, [(one.name, one.cuts) for one in train.added]))
    if found.settings.frames != "auto":
        found.hold_to(found.settings.frames)  # it forgets the batches that it has planned
    return found


def _mixed(recipe: Recipe, added: Sequence[tuple[str, CutSet]]) -> list[Added]:
    """Added corpora, with the share of each that an epoch has."""
    epochs = recipe.training.epochs
    mixed = [
        Added(name, cuts, _share(settings, epochs))
        for (name, cuts), settings in zip(added, recipe.data.also, strict=bool(added))
    ]
    _hold_heard(mixed, epochs)
    return mixed


def _share(added: AddedSettings, epochs: int) -> Fading:
    """What share of an added corpus each epoch has."""
    last = added.rate if added.last_rate is None else added.last_rate
    until = added.until_epoch
    return Fading(added.rate, last, until or epochs, gone=until is not None)


def _hold_heard(mixed: Sequence[Added], epochs: int) -> None:
    for number, one in enumerate(mixed):
        share = max(one.share(epoch) for epoch in range(1, epochs + 1))
        if one.count(share) == 0:
            fewest = 1 / len(one.cuts)
            raise DataError(
                f"data.also.{number}.rate: a share of {share:g} of the {len(one.cuts)} utterances "
                f"of {one.name} is none of them in any epoch; one is {fewest:.2g}"
            )


def _cached(
    recipe: Recipe, parts: Sequence[Part], augment: Augment | None
) -> tuple[list[Part], Cached | None]:
    """The frames of all parts on disk, made if need be, at every speed that may be asked for.

    The parts come back without the utterances whose recordings turned out to be damaged.
    """
    data, frontend = recipe.data, Frontend(recipe.frontend)
    if not isinstance(data, CutsSettings) or data.cache is None:
        return list(parts), None
    places = [(data.root, parts[0].name), *((added.root, added.part) for added in data.also)]
    speeds: set[float] = set(augment.sound.speeds) if augment and augment.sound else {1.0}
    if augment is not None and not augment.active(1):
        speeds.add(1.0)
    shards = {
        speed: [
            cached_part(
                part.cuts,
                frontend,
                data.cache_folder or root / CACHE,
                name,
                speed,
                recipe.batching.workers,
                data.problems,
            )
            for part, (root, name) in zip(parts, places, strict=False)
        ]
        for speed in sorted(speeds)
    }
    left = []
    for number, part in enumerate(parts):
        whole = [at_speed[number] for at_speed in shards.values()]
        unreadable = {place: why for shard in whole for place, why in shard.unreadable.items()}
        kept = [place for place in range(len(part.cuts)) if place not in unreadable]
        left.append(_without(part, unreadable))
        for at_speed in shards.values():
            at_speed[number] = at_speed[number].keeping(kept)
    return left, Cached(shards, [len(part.cuts) for part in left])


def _without(part: Part, unreadable: Mapping[int, str]) -> Part:
    """The part without the utterances at these places, which are among its problems."""
    cuts = list(part.cuts)
    problems = list(part.problems)
    for place, why in sorted(unreadable.items()):
        name, file = cuts[place].id, file_of(cuts[place])
        found = why.removeprefix(f"utterance {name}: ").removeprefix(file).lstrip(": ")
        problems.append(Problem(name, file, found))
    left = [cut for place, cut in enumerate(cuts) if place not in unreadable]
    if not left:
        raise DataError(
            f"no utterance of {part.name} can be used, of {len(cuts)}", [str(p) for p in problems]
        )
    return replace(part, cuts=CutSet.from_cuts(left), problems=tuple(problems))


def learning_of(recipe: Recipe) -> Learning:
    """The sections of a recipe that the trainer takes."""
    return Learning(
        recipe.loss,
        recipe.optimizer,
        recipe.schedule,
        recipe.teacher_forcing,
        recipe.averaging,
        recipe.training,
    )


def remedies_in_use(recipe: Recipe) -> frozenset[str]:
    """What the recipe already does to make attention align, which need not be advised."""
    forcing, schedule = recipe.teacher_forcing, recipe.schedule
    rises = isinstance(schedule, ConstantRate | CosineRate | PlateauRate)
    told = isinstance(forcing, ConstantForcing) and forcing.rate == 1
    recurrent = [
        block
        for block in recipe.listener.blocks
        if isinstance(block, BiLSTMSettings | PyramidSettings)
    ]
    uses = {
        "norm": all(block.norm == "layer" for block in recurrent),
        "convolutions": not any(isinstance(b, MobileSettings) for b in recipe.listener.blocks),
        "dropout": not dropping(recipe),
        "teacher-forcing": told or isinstance(forcing, AfterAlignmentForcing),
        "ctc": recipe.loss.uses_ctc,
        "leading-ctc": recipe.loss.ctc_weight >= 0.6,
        "reduction": 4 <= reduction_of(recipe) <= 8,
        "shortest-first": recipe.batching.shortest_first_epochs > 0,
        "location": recipe.attention.kind == "location",
        "late-augment": recipe.augment is None or recipe.augment.from_epoch > 1,
        "warm-up": schedule.warmup > 0 if rises else True,  # type: ignore[union-attr]
        "label-smoothing": recipe.loss.label_smoothing > 0,
    }
    return frozenset(name for name, used in uses.items() if used)


def dropping(recipe: Recipe) -> list[str]:
    """The settings by which more is dropped than attention aligns with in good time."""
    blocks = [
        (f"listener.blocks.{place}.dropout", block.dropout)
        for place, block in enumerate(recipe.listener.blocks)
    ]
    own = recipe.speller.distribution_dropout
    spelling = [("dropout", recipe.speller.dropout), ("distribution_dropout", own or 0.0)]
    rates = blocks + [(f"speller.{name}", rate) for name, rate in spelling]
    return [name for name, rate in rates if rate > MOST_DROPOUT]


def reduction_of(recipe: Recipe) -> int:
    """How many frames the listener makes one of."""
    with torch.device("meta"):  # shapes without memory
        return Recognizer(
            recipe.listener, recipe.attention, recipe.speller, None, input_width=1, vocabulary=4
        ).listener.reduction
