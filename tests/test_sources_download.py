"""What a download that fails leaves behind."""

import os
import sys
from pathlib import Path

import pytest

from spelldown.data.preparing.sources.catalogue import download
from spelldown.errors import DataError


def test_a_download_that_fails_leaves_no_empty_file_and_no_folder_but_what_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "deep/new"
    arrives: list[str] = []

    def fetch(target_dir: Path, force_download: bool = False, url: str = "") -> None:
        (target_dir / "waves").mkdir()
        (target_dir / "x.tar.gz").touch()
        for name in arrives:
            (target_dir / "waves" / name).write_bytes(b"sound")
            (target_dir / "waves/.completed").touch()
        raise OSError("the line is dead")

    module = sys.modules[download.__module__]
    monkeypatch.setattr(module, "function_for", lambda does, name: fetch)
    with pytest.raises(DataError, match="the line is dead"):
        download("yesno", target)
    assert not target.parent.exists()
    arrives.append("1.wav")
    target.mkdir(parents=True)
    (target / "mine").touch()
    os.utime(target / "mine", (1e9, 1e9))
    with pytest.raises(DataError, match="the line is dead"):
        download("yesno", target)
    left = {path.relative_to(target).as_posix() for path in target.rglob("*")}
    assert left == {"mine", "waves", "waves/1.wav", "waves/.completed"}
