"""Volumes pass through MONAI's loaders unharmed, scale there and back exactly, and come out as they went in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Flipd, Invertd, Orientation, Rotate90d, Spacing, SpatialCropd
from PIL import Image

from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.distinct import distinct
from monai_sasm.io.formats import inventory, output_path, write
from monai_sasm.restoration.inferers import SliceInferer
from monai_sasm.transforms.slice_meta import slice_distance, slices_close, told_axis
from monai_sasm.transforms.thick_slices import ThickSlicesd
from monai_sasm.transforms.volumes import (
    FromWorkingScaled,
    LoadVolumed,
    SaveVolumed,
    SourcePath,
    ToWorkingScaled,
    find_images,
)
from monai_sasm.types import Modality
from tests.bundle_cases import AFFINE, clean_image, load, save


def ct(folder: Path) -> Path:
    """A three-slice CT file."""
    return save(clean_image("CT"), "CT", folder, slices=3)


def test_find_images_leaves_out_what_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ct(tmp_path)
    save(clean_image("PHOTO"), "PHOTO", tmp_path, "photo")
    found = find_images(tmp_path, "CT")
    assert found == [{"image": str(tmp_path / "image.nii.gz")}]
    assert f"left out {tmp_path.name}/photo.png: not a CT image" in caplog.text


@pytest.mark.parametrize("inside", [True, False])
def test_find_images_leaves_out_results(tmp_path: Path, inside: bool, caplog: pytest.LogCaptureFixture) -> None:
    """By their marks, and by the folder they are written to where that lies in the input."""
    source = ct(tmp_path)
    made = tmp_path / "restored"
    made.mkdir()
    derivation = Derivation("monai_sasm", "0", {"net": "1" * 64}, {})
    write(next(iter(inventory(source, Modality.CT))).load(), made / source.name, derivation)
    if inside:
        (made / "image.json").unlink()  # of its marks
    output = made if inside else None
    assert find_images(tmp_path, "CT", output_dir=output) == [{"image": str(source)}]
    told = "it lies in the folder of the results" if inside else "a result of this program"
    assert f"left out restored/{source.name}: {told}" in caplog.text
    assert len(find_images(tmp_path, "CT", results=True)) == 2
    assert len(find_images(tmp_path, "CT", output_dir=tmp_path, results=True)) == 2


def test_load_gives_units_affine_and_slice_axis(tmp_path: Path) -> None:
    image = LoadVolumed("image", "CT")({"image": str(ct(tmp_path))})["image"]
    assert image.shape == (1, 128, 128, 3)
    assert image.dtype == torch.float32
    assert (float(image.min()), float(image.max())) == (-896, 1167)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)
    assert image.meta["slice_axis"] == 2


def test_load_refuses_another_modality(tmp_path: Path) -> None:
    photo = save(clean_image("PHOTO"), "PHOTO", tmp_path)
    with pytest.raises(RefusedError, match="expected one CT image, found 0"):
        LoadVolumed("image", "CT")({"image": str(photo)})


@pytest.mark.parametrize("modality", ["CT", "MR", "PHOTO"])
def test_scaling_there_and_back_is_exact(tmp_path: Path, modality: str) -> None:
    path = save(clean_image(modality), modality, tmp_path)
    forward = Compose([LoadVolumed("image", modality), ToWorkingScaled("image", scaling_for)])
    data = forward({"image": str(path)})
    assert 0.4 < float(data["image"].max()) < 1.6
    data["pred"] = data["image"].clone()
    data["pred"][0, 40, 40] += 0.01
    back = FromWorkingScaled("pred", scaling_for)(data)
    volume = data["image_source"].volume
    changed = back["pred"].as_tensor().numpy() != volume.array
    assert changed.sum() == data["pred"][0, 40, 40].numel(), "only the touched pixels may change"
    step = 0.01 * scaling_for(volume).scale
    assert float(back["pred"][0, 40, 40].max() - volume.array[0, 40, 40].max()) == pytest.approx(step, rel=1e-2)


@pytest.mark.parametrize("modality", ["MR", "CT", "PHOTO"])
def test_a_transform_may_work_in_place(tmp_path: Path, modality: str) -> None:
    path = save(clean_image(modality), modality, tmp_path)
    data = LoadVolumed("image", modality)({"image": str(path)})
    native = data["image_source"].volume.array.copy()
    data["image"].zero_()
    data["pred"] = data["image"].clone()
    np.testing.assert_array_equal(FromWorkingScaled("pred", scaling_for)(data)["pred"].numpy(), native)


def test_time_points_enter_and_leave_by_their_own_white(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(160, 900, (16, 20, 5, 1)) * [1.0, 0.125]
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag([1.0, 1, 2, 1])), tmp_path / "a.nii.gz")
    data = Compose([LoadVolumed("image", "MR"), ToWorkingScaled("image", scaling_for)])(
        {"image": str(tmp_path / "a.nii.gz")}
    )
    assert isinstance(data["image"], MetaTensor)
    assert data["image"].meta["filename_or_obj"] == str(tmp_path / "a.nii.gz")
    assert data["image"][0].equal(data["image"][1])
    data["pred"] = data["image"] + 0.25
    change = FromWorkingScaled("pred", scaling_for)(data)["pred"].numpy() - np.moveaxis(array, 3, 0)
    white = scaling_for(data["image_source"].volume.stacks()[0]).scale
    np.testing.assert_allclose(change[0], 0.25 * white, rtol=1e-4)
    np.testing.assert_allclose(change[1], 0.25 * white / 8, rtol=1e-4)


@pytest.mark.parametrize("modality", ["MR", "PHOTO"])
def test_what_was_moved_is_not_laid_over_its_file(tmp_path: Path, modality: str) -> None:
    path = save(clean_image(modality)[..., :100], modality, tmp_path / "in", slices=3)
    (tmp_path / "bundle" / "models").mkdir(parents=True)
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    back = FromWorkingScaled("pred", scaling_for)
    saver = SaveVolumed("pred", str(tmp_path / "out"), str(tmp_path / "in"), str(tmp_path / "bundle"))
    loading = Compose([LoadVolumed("image", modality), ToWorkingScaled("image", scaling_for)])
    loaded = loading({"image": str(path)})
    for moving in (Flipd("image", 0), Rotate90d("image", 2), SpatialCropd("image", roi_slices=[slice(1, 100)])):
        data = moving(loaded)
        pred = data["image"].clone()
        pred[:, :10] = 0
        with pytest.raises(RefusedError, match=r"'image' .* by MONAI's Invertd"):
            back({**data, "pred": pred})
        with pytest.raises(RefusedError, match=r"'pred' .* by MONAI's Invertd"):
            back({**loaded, "pred": pred})
        if pred.shape == loaded["image"].shape:
            for found in (pred, pred.as_tensor()):
                with pytest.raises(RefusedError, match=r"'pred' .* by MONAI's Invertd"):
                    saver({**data, "pred": found})
    flip = Flipd("image", 0)
    data = flip(loaded)
    pred = data["image"].clone()
    pred[:, :10] = 0
    inverse = Invertd(["pred", "image"], flip, orig_keys="image", nearest_interp=False)
    restored = saver(back(inverse({**data, "pred": pred})))["pred"]
    changed = (restored.as_tensor() != torch.from_numpy(loaded["image_source"].volume.array)).flatten(2).any(-1)
    assert not changed[:, :-10].any(), "what was shown first lies last in the file"
    assert changed[:, -10:].any()
    assert len(list((tmp_path / "out").iterdir())) > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_volume_survives_loading_in_batches(tmp_path: Path, workers: int) -> None:
    ct(tmp_path)
    dataset = Dataset(find_images(tmp_path, "CT"), LoadVolumed("image", "CT"))
    loader = DataLoader(dataset, batch_size=1, num_workers=workers)
    (item,) = decollate_batch(next(iter(loader)))
    source = item["image_source"]
    assert isinstance(source, SourcePath)
    assert source.volume is not None
    np.testing.assert_array_equal(source.volume.array, item["image"].as_tensor().numpy())
    assert item["image"].meta["slice_axis"] == 2


def test_source_path_survives_pickling(tmp_path: Path) -> None:
    (found,) = find_images(ct(tmp_path), "CT")
    copy = pickle.loads(pickle.dumps(found["image"]))
    assert copy == found["image"]
    assert copy.entry.name == found["image"].entry.name


def test_save_writes_the_same_kind_and_never_over_a_file(tmp_path: Path) -> None:
    source = ct(tmp_path / "in" / "deep")
    (tmp_path / "bundle" / "models").mkdir(parents=True)
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    saver = SaveVolumed("pred", str(tmp_path / "out"), str(tmp_path / "in"), str(tmp_path / "bundle"))
    data = LoadVolumed("image", "CT")(find_images(tmp_path / "in", "CT")[0])
    data["pred"] = data["image"] + 7
    saver(data)
    result = tmp_path / "out" / "deep" / source.name
    np.testing.assert_array_equal(load(result), load(source) + 7)
    assert nibabel.load(result).get_data_dtype() == np.int16
    with pytest.raises(FileExistsError):
        saver(data)


@pytest.mark.parametrize(
    ("section", "said", "repairs"),
    [
        ({"degradation": "low-resolution"}, "Super-resolution", ("low-resolution",)),
        ({"degradation": "motion"}, "Repair of motion", ("motion",)),
        ({}, "Image restoration", ()),
        (None, "Image restoration", ()),
    ],
)
def test_a_run_of_a_bundle_says_what_it_repairs(
    section: dict[str, str] | None, said: str, repairs: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("models", "configs"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    if section is not None:
        (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"sasm": section}))
    done = SaveVolumed("pred", str(tmp_path), str(tmp_path), str(tmp_path))._derivation()
    assert (done.summary, done.repairs) == (said, repairs)


def test_results_of_one_name_are_told_apart_as_by_restore(tmp_path: Path) -> None:
    """Read-only formats become PNG, and volumes share their sidecar."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.webp", "a.gif", "a.png", "b.png")):
        Image.fromarray(np.full((9, 9, 3), 40 * number, np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "bundle" / "models").mkdir(parents=True)
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    places = [str(tmp_path / name) for name in ("out", "in", "bundle")]
    for item in pickle.loads(pickle.dumps(find_images(tmp_path / "in", "PHOTO"))):
        data = LoadVolumed("image", "PHOTO")(item)
        SaveVolumed("pred", *places)({**data, "pred": data["image"]})
    entries = inventory(tmp_path / "in")
    wanted = distinct([output_path(entry, tmp_path / "in", tmp_path / "out") for entry in entries], entries)
    assert sorted(wanted) == sorted((tmp_path / "out").iterdir())
    assert sorted(path.name for path in wanted) == ["a.gif.png", "a.png", "a.webp.png", "b.png"]
    for entry, place in zip(entries, wanted, strict=True):
        np.testing.assert_array_equal(
            np.asarray(Image.open(place)), np.asarray(Image.open(entry.paths[0]).convert("RGB"))
        )


def test_a_missing_source_is_named() -> None:
    with pytest.raises(KeyError, match="LoadVolumed"):
        ToWorkingScaled("image", scaling_for)({"image": torch.zeros(1, 4, 4)})


@pytest.mark.parametrize("batch", [False, True])
def test_slices_are_counted_along_the_stack_however_a_volume_is_turned(tmp_path: Path, batch: bool) -> None:
    array = np.random.default_rng(0).uniform(1, 900, (10, 12, 14)).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[[2, 0, 1, 3], [0, 1, 2, 3]] = -4, 1, -1, 1  # slices come first, 4 mm apart, from head to feet
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    loaded = LoadVolumed("image", "MR")({"image": str(tmp_path / "a.nii.gz")})["image"]
    turned = Orientation("RAS", labels=None)(loaded)
    fine = Spacing((1, 1, 1))(turned)
    assert tuple(turned.shape) == (1, 12, 14, 10)
    assert tuple(ThickSlicesd("image", 2)({"image": turned})["image"].shape) == (1, 12, 14, 5)
    for image, axis, distance, close in ((loaded, 0, 4, False), (turned, 2, 4, False), (fine, 2, 1, True)):
        one = list_data_collate([{"image": image}])["image"] if batch else image
        assert (told_axis(one), slice_distance(one), slices_close(one)) == (axis, pytest.approx(distance), close)
    shapes = []

    def network(slices: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(slices.shape))
        return slices[:, [slices.shape[1] // 2]]

    SliceInferer(chunk=20, neighbours=1)(turned[None], network)
    SliceInferer(chunk=1, neighbours=1)(fine[None], network)
    assert shapes[:2] == [(10, 1, 12, 14), (1, 3, 12, 14)]
