"""Spelling many utterances where memory is short: in ever smaller batches, and all of them."""

from collections.abc import Iterator, Sequence
from functools import partial

from spelldown.errors import DoesNotFitError
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Failure, Item, Transcript
from spelldown.training.guard.failing import give_back, is_out_of_memory
from spelldown.training.guard.guard import RETRIES, WORTH_A_RETRY
from spelldown.training.guard.limit import held_to
from spelldown.training.guard.worker import Worker


def within_memory(
    transcriber: Transcriber, items: Sequence[Item], memory: str | None = None
) -> Iterator[Transcript | Failure]:
    """What the transcriber gives of each item, in the items' order.

    Where memory runs out, its batches are half as large from there on; what has been spelled by
    then is kept. memory: a limit that is held meanwhile, such as 6GB; None for what there is.

    Raises DoesNotFitError, naming it, if an utterance alone does not fit, and TrainingError for a
    limit that leaves nothing to work in.
    """
    device = next(transcriber.recognizer.parameters()).device
    give_back(device)  # what was trained before may have left something
    worker, done, retries = Worker(), 0, 0
    try:
        with held_to(memory, device) as fence:
            if memory is not None and device.type == "cpu":
                with fence.eased():
                    worker.begin(anyway=True)
            while done < len(items):
                alone = transcriber.batch_utterances == 1
                end = done + 1 if alone else len(items)
                for found in _while_it_fits(transcriber.transcribe(items[done:end]), worker):
                    yield found
                    done, retries = done + 1, 0
                if done == end:
                    continue
                regained = give_back(device) + fence.settle()
                with fence.eased():
                    worker.begin()
                if regained >= WORTH_A_RETRY and retries < RETRIES[device.type == "cuda"]:
                    retries += 1
                elif alone:
                    raise _too_large(items[done], str(device), memory)
                else:
                    transcriber.batch_frames = max(transcriber.batch_frames // 2, 1)
                    transcriber.batch_utterances //= 2
    finally:
        worker.close()


def _while_it_fits(
    spelled: Iterator[Transcript | Failure], worker: Worker
) -> Iterator[Transcript | Failure]:
    """What comes, to the end or until memory runs out; nothing of it is held any more then."""
    while True:
        try:
            found = worker.run(partial(next, spelled, None))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            worker.failed(error)
            return
        if found is None:
            return
        yield found


def _too_large(item: Item, device: str, memory: str | None) -> DoesNotFitError:
    where = device if memory is None else f"{device}, {memory} of it"
    return DoesNotFitError(
        f"{item.id}: this utterance alone does not fit into memory ({where}) when it is spelled. "
        "What would help: more memory (training.memory, if that is the limit), or leaving such "
        "long utterances out of the corpus"
    )
