"""Slices in any order and at any strength are, to the last bit, those of a whole restoration at that strength."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import monai_sasm as sasm
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.on_demand import OnDemand
from monai_sasm.restoration.options import Options
from tests.data import ct_small, mr_volume


def images() -> dict[str, Volume]:
    """One CT slice, an MR volume whose slices have neighbours, the same with two time points, a grey photo."""
    mr = next(sasm.open_images(mr_volume(), "MR"))
    rng = np.random.default_rng(0)
    noisy = mr.array[..., :6] + rng.normal(0, 0.08 * mr.array.max(), (*mr.array.shape[:3], 6))
    mr = replace(mr, array=np.abs(noisy).astype(np.float32), affine=np.eye(4), source=None)
    grey = (0.5 + rng.normal(0, 0.2, (1, 48, 64))).clip(0, 1).astype(np.float32)
    ct = next(sasm.open_images(ct_small()))
    return {
        "CT": ct.with_array(ct.array + rng.normal(0, 60, ct.array.shape).astype(np.float32)),
        "MR": mr,
        "time": replace(mr, array=np.concatenate([mr.array, 2 * mr.array])),
        "grey": Volume(grey, sasm.Modality.PHOTO),
    }


@pytest.fixture(scope="module")
def restorer() -> sasm.Restorer:
    return sasm.Restorer("cpu", precision="float32")


@pytest.mark.parametrize("name", ["CT", "MR", "time", "grey"])
def test_any_order_and_strength_is_the_whole_restoration(name: str, restorer: sasm.Restorer) -> None:
    volume = images()[name]
    one = OnDemand(volume, restorer.plan(volume.modality, Options(keep_maps=True)))
    for index in reversed(range(len(one))):
        one.restore(index)
    assert one.done == list(range(len(one)))
    for strength in (1.0, 0.3, 0.0):
        expected = restorer(volume, strength=strength, keep_maps=strength == 1)
        given = one.restored(strength)
        np.testing.assert_array_equal(given.volume.array, expected.volume.array)
        assert given.derivation == expected.derivation
        assert [note.split(":")[0] for note in given.volume.notes] == [n.split(":")[0] for n in expected.volume.notes]
        if strength == 1:
            assert np.abs(expected.volume.array - volume.array).max() > 0
            for label, weight in expected.weights.items():
                if label in one.plan.classes and weight.any():
                    kept = np.stack([one.weights(index).get(label, 0 * weight[0]) for index in range(len(one))])
                    np.testing.assert_allclose(kept / 255, weight, atol=0.5 / 255 + 1e-6)


def test_a_change_is_linear_in_the_strength(restorer: sasm.Restorer) -> None:
    """What lets a viewer blend by itself, magnitudes that must not become negative included."""
    volume = images()["MR"]
    one = OnDemand(volume, restorer.plan(volume.modality))
    one.restore(3)
    full = one.change(3)
    for strength in (0.25, 0.6):
        np.testing.assert_allclose(one.change(3, strength), strength * full, atol=1e-5 * np.abs(volume.array).max())
    with pytest.raises(KeyError):
        one.change(2)


def test_neighbours_and_samples(restorer: sasm.Restorer) -> None:
    """An expert that looks at neighbouring slices, and draws samples that disagree."""
    volume = images()["MR"]
    volume = replace(volume, array=np.ascontiguousarray(volume.array[..., :3]))
    options = Options(expert="superres_mri_sit", keep_maps=True)
    plan = restorer.plan(volume.modality, options)
    assert plan.neighbours > 0, "this test means nothing without"
    one, without = OnDemand(volume, plan), OnDemand(replace(volume, affine=None), plan)
    for index in (2, 0, 1):
        one.restore(index)
    whole = restorer(volume, options)
    np.testing.assert_array_equal(one.restored(1.0).volume.array, whole.volume.array)
    assert whole.uncertainty is not None
    np.testing.assert_array_equal(np.stack([one.uncertainty(i) for i in range(3)]), whole.uncertainty)
    without.restore(1)
    assert not np.array_equal(one.change(1), without.change(1))
