"""What memory is measured on is taken for what it stands for: a series, a volume, a photo."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm.evaluation.memory import COPY, peak_memory
from monai_sasm.evaluation.synthetic_series import body_slices


def test_slices_are_a_body_in_air_with_noise_that_moves() -> None:
    first, second = body_slices(2, 64)
    assert float(first[:4].mean()) == pytest.approx(-1000, abs=15)
    assert float(first[24:40, 24:40].mean()) == pytest.approx(40, abs=15)
    assert float(np.std(first[24:40, 24:40])) == pytest.approx(60, rel=0.2)
    assert np.array_equal(np.roll(first, 7, axis=1)[30, 20:30], second[30, 20:30])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("series", (2,)), ("volume", (2,)), ("photo", (64, 80))])
def test_every_kind_is_restored_and_weighed(kind: str, size: tuple[int, ...]) -> None:
    """Between an interpreter with torch and a small machine."""
    assert 150 < peak_memory(kind, *size, expert=COPY) < 4000


def test_a_volume_has_the_geometry_it_says(tmp_path: Path) -> None:
    from monai_sasm.evaluation.memory import _make_volume

    image = nibabel.load(_make_volume(tmp_path / "in.nii.gz", 3))
    assert image.shape == (512, 512, 3)
    assert float(np.asarray(image.dataobj)[0, 0].mean()) == pytest.approx(-1000, abs=200)
