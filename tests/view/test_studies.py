"""What the one thread that restores does first."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality
from monai_sasm.view.studies import KEPT, KEPT_MADE, LARGE, NICER, Studies, Study


class Recorded:
    """Slices that note when they were restored."""

    units = 1

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order
        self.done: list[int] = []

    def restore(self, index: int, progress: Any = None) -> None:
        self.order.append(self.name)
        self.done.append(index)


class Photo(Study):
    """A photo whose networks are recorded."""

    def __init__(self, side: int) -> None:
        super().__init__(cast(Any, SimpleNamespace(id="1")), {"expert": None})
        self.side, self.order = side, cast("list[str]", [])

    def read(self) -> Volume:
        return Volume(np.zeros((3, self.side, self.side), np.float32), Modality.PHOTO)

    def prepare(self, restorer: Any) -> None:
        self.preview = self.preview or cast(Any, Recorded("preview", self.order))
        self.one = self.one or cast(Any, Recorded("whole", self.order))


def restored(photo: Photo) -> None:
    """Let the thread restore all of a photo."""
    assert photo.volume.array.shape[1] == photo.side
    studies = Studies(cast(Any, object))
    studies.add(photo)
    ends = time.monotonic() + 60
    while "whole" not in photo.order and time.monotonic() < ends:
        time.sleep(0.01)
    studies.close()


@pytest.mark.parametrize(
    ("side", "expected"), [(int(LARGE**0.5) + 1, ["preview", "whole"]), (64, ["whole"])], ids=["large", "small"]
)
def test_a_large_photo_begins_with_its_preview_though_nobody_asked_yet(side: int, expected: list[str]) -> None:
    photo = Photo(side)
    restored(photo)
    assert photo.order == expected


def waiting(studies: Studies, photo: Photo) -> threading.Thread:
    """Somebody who saves a photo, and waits until it is restored."""
    thread = threading.Thread(target=studies.wait, args=(photo,), daemon=True)
    thread.start()
    ends = time.monotonic() + 60
    while not photo.wanted and time.monotonic() < ends:
        time.sleep(0.01)
    return thread


def test_what_is_saved_is_restored_though_it_was_made_anew_or_closed_since() -> None:
    """As an enlargement is that is asked for again at another place."""
    loaded, first, second = threading.Event(), Photo(64), Photo(64)
    studies = Studies(cast(Any, loaded.wait))
    studies.add(first)
    saving = waiting(studies, first)
    studies.add(second)
    studies.forget(second.image)
    loaded.set()
    saving.join(10)
    assert first.order == ["whole"]
    assert not saving.is_alive()
    studies.close()


def test_while_one_is_saved_the_others_are_closed_all_the_same() -> None:
    loaded, photo = threading.Event(), Photo(64)
    studies = Studies(cast(Any, loaded.wait))
    studies.add(photo)
    saving = waiting(studies, photo)
    for number in range(3 * KEPT):
        studies(cast(Any, SimpleNamespace(id=f"other {number}")))
    assert len(studies._studies) == KEPT
    assert photo in studies._studies.values()
    loaded.set()
    saving.join(10)
    assert not saving.is_alive()
    studies.close()


def test_what_was_painted_is_not_closed_for_images_that_are_pointed_at() -> None:
    studies = Studies(cast(Any, threading.Event().wait))
    painted = [Photo(64) for _ in range(3 * KEPT)]
    for number, photo in enumerate(painted):
        photo.choices["expert"] = f"fill-{number}"
        studies.add(photo)
    for number in range(3 * KEPT):
        studies(cast(Any, SimpleNamespace(id=f"other {number}")))
    assert len(studies._studies) == KEPT
    for number in range(3 * KEPT - KEPT_MADE, 3 * KEPT):
        assert studies(painted[number].image, f"fill-{number}") is painted[number]
    with pytest.raises(RefusedError, match="make it again"):
        studies(painted[0].image, "fill-0")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_restoring_waits_for_whoever_draws_the_page() -> None:
    found: list[tuple[int, int]] = []

    class Asked(Photo):
        def prepare(self, restorer: Any) -> None:
            found.append((threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)))
            super().prepare(restorer)

    photo, before = Asked(64), os.getpriority(os.PRIO_PROCESS, 0)
    restored(photo)
    assert found[0][0] != threading.get_native_id()
    assert found[0][1] == min(before + NICER, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_named_gate_gives_way_to_a_named_expert_and_both_are_in_the_command() -> None:
    def command(output: Path, *, expert: str | None, strength: float, words: Sequence[str] = ()) -> str:
        return f"{expert} {strength} {' '.join(words)}"

    image = cast(Any, SimpleNamespace(id="1", command=command))
    studies = Studies(cast(Any, object), {"gate": "gate_own"}, ["--trust", "bundles"])
    gated, named = studies(image), studies(image, "lowdose_ct_unet")
    studies.close()
    assert Options(**gated.choices).gate == "gate_own"
    assert Options(**named.choices) == Options(expert="lowdose_ct_unet")
    assert gated.command(Path("out"), 1) == "None 1 --gate gate_own --trust bundles"
    assert named.command(Path("out"), 0.5) == "lowdose_ct_unet 0.5 --trust bundles"
