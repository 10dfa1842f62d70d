"""Training images are found, paired and cropped as asked, and simulated only once."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from monai_sasm.datasets.crops import CropDataset, WholeDataset
from monai_sasm.datasets.images import paired, photo_files, photos, slices
from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.own_folder import own_images
from monai_sasm.training.outputs import windowed
from monai_sasm.training.simulated import simulated_pairs
from monai_sasm.types import Modality
from tests.bundle_cases import AFFINE, clean_image, save


def pairs(root: Path) -> Path:
    """Three CT pairs under the names that dose studies use."""
    for stem, shift in (("a1", 10), ("a2", 20), ("b1", 30)):
        clean = clean_image("CT")
        save(clean, "CT", root / "full", stem)
        save(clean + shift, "CT", root / "quarter", stem)
    return root


def shifts(found: list[tuple[np.ndarray, ...]]) -> list[int]:
    """Noise of each pair, HU."""
    return [round(float((noisy - clean).mean()) * 1000) for clean, noisy in found]


def test_pairs_are_matched_chosen_and_left_out_by_name(tmp_path: Path) -> None:
    root = pairs(tmp_path)
    assert shifts(paired([root], "CT", "full", "quarter")) == [10, 20, 30]
    assert shifts(paired([root], "CT", "full", "quarter", stems=["a"])) == [10, 20]
    assert shifts(paired([root], "CT", "full", "quarter", exclude=["a1", "b"])) == [20]
    assert paired([], "CT") == []


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    root = pairs(tmp_path)
    (root / "quarter" / "b1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"b1\.nii\.gz"):
        paired([root], "CT", "full", "quarter")
    with pytest.raises(FileNotFoundError, match="no files at all"):
        paired([root], "CT")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    root = pairs(tmp_path)
    for name in ("full/.DS_Store", "quarter/._a1.nii.gz"):
        (root / name).write_bytes(b"of a file manager")
    assert shifts(paired([root], "CT", "full", "quarter")) == [10, 20, 30]
    save(clean_image("PHOTO"), "PHOTO", tmp_path / "photos", "one")
    (tmp_path / "photos" / "._one.png").write_bytes(b"of a file manager")
    assert [path.name for path in photo_files([tmp_path / "photos"])] == ["one.png"]


def test_pairs_of_unequal_shape_are_refused(tmp_path: Path) -> None:
    save(clean_image("CT"), "CT", tmp_path / "clean")
    save(clean_image("CT")[:, :100], "CT", tmp_path / "noisy")
    with pytest.raises(ValueError, match="differ in shape"):
        paired([tmp_path], "CT")


@pytest.mark.parametrize("change", [(0, 0, -1.0), (2, 3, 0.5)])
def test_pairs_at_unequal_places_are_refused(tmp_path: Path, change: tuple[int, int, float]) -> None:
    row, column, factor = change
    path = save(clean_image("CT"), "CT", tmp_path / "clean")
    noisy = nibabel.load(save(clean_image("CT"), "CT", tmp_path / "noisy"))
    moved = AFFINE.copy()
    moved[row, column] *= factor
    nibabel.save(nibabel.Nifti1Image(np.asarray(noisy.dataobj)[::-1], moved), tmp_path / "noisy" / path.name)
    with pytest.raises(RefusedError, match=r"image\.nii\.gz: clean and degraded image do not lie at the same place"):
        paired([tmp_path], "CT")
    with pytest.raises(RefusedError, match="do not lie at the same place"):
        own_images(tmp_path, Modality.CT)[0][0].load()


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_photos_that_exif_turns_differently_are_no_pair(tmp_path: Path, turn: int) -> None:
    for kind, orientation in (("clean", 3), ("noisy", turn)):
        (tmp_path / kind).mkdir()
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", (16, 16)).save(tmp_path / kind / "a.png", exif=exif)
    pair = own_images(tmp_path, Modality.PHOTO)[0][0]
    if turn == 3:
        assert len(paired([tmp_path], "PHOTO")) == 1
        assert pair.load()[1] is not None
        return
    with pytest.raises(RefusedError, match=r"a\.png: EXIF turns clean and degraded photo differently"):
        paired([tmp_path], "PHOTO")
    with pytest.raises(RefusedError, match="EXIF turns clean and degraded photo differently"):
        pair.load()


def test_both_images_of_an_mr_pair_share_one_scale(tmp_path: Path) -> None:
    clean = clean_image("MR")
    save(clean, "MR", tmp_path / "clean")
    save(clean * 2, "MR", tmp_path / "noisy")
    ((first, second),) = paired([tmp_path], "MR")
    np.testing.assert_allclose(second, first * 2, atol=0.01)


def cube(root: Path, sides: tuple[float, float, float] = (1, 1, 1)) -> None:
    """A pair of MR volumes of 6 x 8 x 5 voxels whose first slice is flat: noisy is half of clean."""
    clean = 400 + np.random.default_rng(0).integers(0, 400, (6, 8, 5)).astype(np.int16) // 2 * 2
    clean[..., 0] = 400
    for kind, volume in (("clean", clean), ("noisy", clean // 2)):
        (root / kind).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([*sides, 1.0])), root / kind / "a.nii.gz")


def test_degraded_slices_of_pairs_come_between_their_neighbours(tmp_path: Path) -> None:
    cube(tmp_path / "close")
    cube(tmp_path / "far", (1, 1, 4))
    found = paired([tmp_path / "close"], "MR", neighbours=1)
    assert [tuple(part.shape for part in pair) for pair in found] == [((1, 6, 8), (3, 6, 8))] * 5
    clean = np.concatenate([pair[0] for pair in found])
    for number, (_, noisy) in enumerate(found):
        np.testing.assert_allclose(noisy, clean[np.clip([number - 1, number, number + 1], 0, 4)] / 2, rtol=1e-6)
    assert {pair[1].shape for pair in paired([tmp_path / "far"], "MR", neighbours=1)} == {(1, 6, 8)}


def test_pairs_are_cut_and_chosen_as_clean_slices_are(tmp_path: Path) -> None:
    cube(tmp_path)
    assert len(paired([tmp_path], "MR", min_std=0.01)) == 4
    shapes = [pair[0].shape for pair in paired([tmp_path], "MR", min_std=0.01, all_planes=True)]
    assert shapes == [(1, 8, 5)] * 6 + [(1, 6, 5)] * 8 + [(1, 6, 8)] * 4
    found = paired([tmp_path], "MR", all_planes=True, neighbours=2)
    assert {noisy.shape[0] for _, noisy in found} == {5}
    assert all(np.allclose(noisy[2], clean[0] / 2) for clean, noisy in found)


def test_time_points_come_each_in_its_own_scale(tmp_path: Path) -> None:
    """Diffusion at b = 3000, a tenth as bright as without, would be all but black."""
    bright = np.random.default_rng(0).integers(40, 80, (12, 16, 3)).astype(np.float32)
    series = np.stack([10 * bright, bright], -1)
    for kind, share in (("clean", 1), ("noisy", 0.5)):
        (tmp_path / kind).mkdir()
        nibabel.save(nibabel.Nifti1Image(share * series, np.eye(4)), tmp_path / kind / "a.nii.gz")
    alone = np.stack(slices([tmp_path / "clean" / "a.nii.gz"], "MR"))
    np.testing.assert_allclose(alone[3:], alone[:3], rtol=1e-5)
    assert 0.9 < alone.max() < 1.1
    for planes, count in ((False, 6), (True, 2 * (12 + 16 + 3))):
        pairs = paired([tmp_path], "MR", all_planes=planes)
        assert len(pairs) == count
        for clean, noisy in pairs:
            np.testing.assert_allclose(noisy, clean / 2, rtol=1e-5)
            assert clean.max() > 0.7


def test_photos_and_slices_read_what_is_there(tmp_path: Path) -> None:
    save(clean_image("PHOTO"), "PHOTO", tmp_path / "photos", "one")
    save(clean_image("PHOTO"), "PHOTO", tmp_path / "photos", "two")
    assert len(photos([tmp_path / "photos"])) == 2
    assert len(photos([tmp_path / "photos"], exclude=["two"])) == 1
    volume = np.repeat(clean_image("MR").transpose(1, 2, 0), 3, axis=2)
    volume[..., 1] = 0  # an empty slice
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), AFFINE), tmp_path / "mr.nii.gz")
    assert [part.shape for part in slices([tmp_path / "mr.nii.gz"], "MR")] == [(1, 128, 128)] * 2


def test_crops_of_air_are_drawn_again() -> None:
    image = np.full((1, 100, 200), -1.0, np.float32)
    image[..., 100:] = 0.05
    means = [
        np.array([float(crop["image"].mean()) for crop in CropDataset([image], 32, 200, min_mean=limit)])
        for limit in (-float("inf"), -0.9)
    ]
    assert (means[0] < -0.9).mean() > 0.3
    assert (means[1] < -0.9).mean() < 0.02


def test_images_too_small_for_a_crop_are_told(caplog: pytest.LogCaptureFixture) -> None:
    images = [np.zeros((1, 40, side), np.float32) for side in (40, 20, 32, 31)]
    crops = CropDataset(images, 32, 20)
    assert [array.shape[-1] for (array,) in crops.images] == [40, 32]
    (told,) = caplog.messages
    assert told == (
        "left out: 2 of 4 images are less than 32 pixels high or wide: number 2 (40 x 20), 4 (40 x 31); "
        "give larger images, or a smaller side of the crop (crop_size, val_crop_size)"
    )
    with pytest.raises(ValueError, match=r"9 of 9 images .* number 1 \(40 x 20\), 2 .* and others; give larger images"):
        CropDataset([images[1]] * 9, 32, 1)


def test_fixed_crops_repeat_and_others_do_not() -> None:
    image = np.random.default_rng(0).random((3, 80, 90), np.float32)
    for fixed in (True, False):
        crops = CropDataset([image], 16, 3, fixed=fixed)
        assert torch.equal(crops[1]["image"], crops[1]["image"]) == fixed


def test_whole_images_keep_order_and_size() -> None:
    images = [(np.full((1, side, 20), side, np.float32), np.zeros((1, side, 20), np.float32)) for side in (10, 30)]
    whole = WholeDataset(images, keys=("clean", "noisy"))
    assert [tuple(item["clean"].shape) for item in whole] == [(1, 10, 20), (1, 30, 20)]
    assert [float(item["clean"].mean()) for item in whole] == [10, 30]
    few = WholeDataset([np.full((1, 8, 8), number, np.float32) for number in range(9)], limit=3)
    assert [float(item["image"].mean()) for item in few] == [0, 4, 8]
    with pytest.raises(ValueError, match="2 aligned arrays"):
        WholeDataset([images[0][0]], keys=("clean", "noisy"))


def test_simulated_pairs_are_made_once(tmp_path: Path) -> None:
    source = save(clean_image("CT"), "CT", tmp_path / "ct", slices=2)
    cache = tmp_path / "pairs.npz"
    settings = {"count": 2, "dose": (0.02, 0.02), "kernels": ["soft"], "exposure": (1, 1)}
    first = simulated_pairs([source], cache, **settings)
    assert len(first) == 2
    np.testing.assert_allclose(first[0][0], clean_image("CT") / 1000, atol=6e-4)
    inside = clean_image("CT") > -100
    noise = (first[0][1] - first[0][0])[inside].std() * 1000
    assert 5 < noise < 200, "HU"
    source.unlink()
    again = simulated_pairs([source], cache, **settings)
    np.testing.assert_array_equal(np.stack(again), np.stack(first))
    assert simulated_pairs([], tmp_path / "none.npz") == []
    with pytest.raises(ValueError, match="kernels must be some of"):
        simulated_pairs([source], tmp_path / "other.npz", kernels=["smooth"])


def test_window_maps_to_zero_and_one() -> None:
    ramp = torch.tensor([-1.0, -0.16, 0.04, 0.24, 2.0])
    (pred,), (label,) = windowed(-0.16, 0.24)([{"pred": ramp, "label": ramp[:3]}])
    torch.testing.assert_close(pred, torch.tensor([0, 0, 0.5, 1, 1]))
    torch.testing.assert_close(label, torch.tensor([0, 0, 0.5]))
    with pytest.raises(ValueError, match="low < high"):
        windowed(1, 0)


def test_cubic_volumes_are_cut_in_all_directions(tmp_path: Path) -> None:
    cubic, thick = (tmp_path / name for name in ("cubic.nii.gz", "thick.nii.gz"))
    array = np.random.default_rng(0).uniform(1, 100, (6, 7, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1.1, 1, 1])), cubic)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 5, 1])), thick)
    assert len(slices([cubic], "MR")) == 8
    shapes = {image.shape[-2:] for image in slices([cubic], "MR", all_planes=True)}
    assert shapes == {(7, 8), (6, 8), (6, 7)}
    assert len(slices([cubic], "MR", all_planes=True)) == 6 + 7 + 8
    assert len(slices([thick], "MR", all_planes=True)) == 8
