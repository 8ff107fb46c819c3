"""TensorBoard: files in the run's folder, which `tensorboard --logdir runs` shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from spelldown.settings import Settings
from spelldown.training.run.trackers.notebook import About, Notebook

FOLDER = "tensorboard"


class TensorBoardSettings(Settings):
    """TensorBoard's files, in the run's own folder; `tensorboard --logdir runs` shows them."""

    kind: Literal["tensorboard"] = "tensorboard"


class TensorBoard(Notebook):
    kind: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"
    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def __init__(self, settings: TensorBoardSettings) -> None:
        self.writer: Any = None

    def open(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(about.folder / FOLDER))
        self.writer.add_text("recipe", f"```yaml\n{about.page}```")
        self.writer.flush()

    def within(self, position: int, loss: float) -> None:
        self.writer.add_scalar("within/loss", loss, position)

    def epoch(self, epoch: int, numbers: Mapping[str, float], facts: Mapping[str, str]) -> None:
        for name, value in numbers.items():
            # What stands in no section of the line gets one, so that the page is in order.
            self.writer.add_scalar(name if "/" in name else f"run/{name}", value, epoch)
        for name, fact in facts.items():
            self.writer.add_text(name, fact, epoch)
        self.writer.flush()

    def pictures(self, epoch: int, paths: Sequence[Path]) -> None:
        from matplotlib.image import imread

        for path in paths:
            # The epoch stands in the file's name, and is TensorBoard's step.
            name = path.stem.removeprefix(f"epoch-{epoch:03}-")
            self.writer.add_image(f"attention/{name}", imread(path), epoch, dataformats="HWC")
        self.writer.flush()

    def close(self, healthy: bool) -> None:
        self.writer.close()
