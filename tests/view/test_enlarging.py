"""An enlarged photo begins with what is looked at, and ends as the bundle alone makes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from monai_sasm.io.volume import Volume
from monai_sasm.recipes.inference import tiling
from monai_sasm.restoration.inferers import EnlargingInferer
from monai_sasm.types import Modality
from monai_sasm.view.photo_jobs import Enlarging, Filling


class Repeating:
    """Repeats pixels, a little brighter."""

    calls = 0

    def superresolve(self, image: Tensor, factor: int, **options: Any) -> Tensor:
        self.calls += 1
        return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2) + 0.1


@pytest.fixture
def photo() -> Volume:
    return Volume(np.random.default_rng(0).random((3, 300, 420), np.float32), Modality.PHOTO)


def prepared(photo: Volume, view: tuple[float, float, float, float] | None) -> tuple[Enlarging, Repeating]:
    network, base = Repeating(), cast(Any, SimpleNamespace(image=None, volume=photo))
    study = Enlarging(base, 2, view)
    bundle = SimpleNamespace(network=network, name="repeating", sha256="0", device=torch.device("cpu"))
    study.prepare(cast(Any, SimpleNamespace(expert=lambda name: bundle)))
    return study, network


def test_what_is_looked_at_comes_first(photo: Volume) -> None:
    study, network = prepared(photo, (200, 10, 280, 150))  # in the last row of tiles, and the first column
    assert study.reduction > 1
    assert study.first_look() is study.volume
    assert study.preview is not None
    assert study.one is not None
    study.preview.restore(0)
    assert network.calls == 1
    change = study.preview.change(0)
    assert np.abs(change[:, 2 * 192 :, : 2 * 192]).min(0).max() > 0.01
    assert not change[:, : 2 * 192].any()
    assert not change[:, :, 2 * 192 :].any()
    study.one.restore(0)
    assert network.calls == 6, "2 x 3 tiles, one of which was there already"
    whole = EnlargingInferer(2, tiles=tiling(192, 32))(torch.from_numpy(photo.array)[None], Repeating())[0].numpy()
    np.testing.assert_allclose(study.volume.array + study.one.change(0), whole, atol=1e-6)


def test_who_gives_way_goes_on_where_he_was(photo: Volume) -> None:
    study, network = prepared(photo, (0, 0, 10, 10))
    assert study.one is not None

    def interrupting(units: int) -> None:
        if network.calls == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        study.one.restore(0, interrupting)
    assert study.one.done == []
    study.one.restore(0, lambda units: None)
    assert network.calls == 6
    assert study.one.done == [0]


@pytest.mark.parametrize("view", [None, (-50.0, -50.0, 900.0, 900.0)])
def test_a_photo_that_is_seen_whole_has_no_preview(photo: Volume, view: Any) -> None:
    assert prepared(photo, view)[0].reduction == 1


class Elsewhere:
    """A network on another device: notes where its images lie, and answers on the CPU."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def superresolve(self, image: Tensor, factor: int, **options: Any) -> Tensor:
        self.seen.add(image.device.type)
        return torch.zeros(1, 3, factor * image.shape[2], factor * image.shape[3])


def test_photos_go_to_the_device_of_the_network(photo: Volume) -> None:
    network, base = Elsewhere(), cast(Any, SimpleNamespace(image=None, volume=photo))
    bundle = SimpleNamespace(network=network, name="elsewhere", sha256="0", device=torch.device("meta"))
    restorer = cast(Any, SimpleNamespace(expert=lambda name: bundle))
    enlarging = Enlarging(base, 2)
    enlarging.prepare(restorer)
    assert enlarging.one is not None
    enlarging.one.restore(0)
    assert network.seen == {"meta"}
    filling = Filling(base, np.arange(300 * 420).reshape(300, 420) % 7 > 0, "fill-1")
    filling.prepare(restorer)
    assert filling.one is not None
    with pytest.raises(RuntimeError, match="meta tensors"):  # the mask lies there, too, and there it has no values
        filling.one.restore(0)


def test_a_saved_photo_says_that_detail_was_drawn(photo: Volume, tmp_path: Path) -> None:
    study, _ = prepared(photo, None)
    assert study.one is not None
    study.one._bundle.settings = "0"  # type: ignore[attr-defined]
    study.one.restore(0)
    study.one.save(tmp_path / "large.png", 1.0)
    text = PIL.Image.open(tmp_path / "large.png").text  # type: ignore[attr-defined]
    assert text["Warning"] == "enlarged 2 times by repeating: detail was drawn that nobody measured"
    entry = SimpleNamespace(paths=[Path("a photo.png")])
    study.image = cast(Any, SimpleNamespace(entry=entry, uploaded=False))
    assert study.command(Path("out"), 1.0) == "sasm enlarge 'a photo.png' -o out --factor 2"
