"""Tensors of any floating type, with a gradient and on any device pass through what works by NumPy and SimpleITK."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import MapTransform

from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.derivation import Derivation
from monai_sasm.restoration.save_maps import SaveMapsd
from monai_sasm.transforms.bias_field import CorrectBiasFieldd
from monai_sasm.transforms.comparisons import SaveComparisond
from monai_sasm.transforms.degradation import LowResolutionMrd
from monai_sasm.transforms.label_maps import SaveLabelMapd
from monai_sasm.transforms.normalisation import ToWorkingScaleInvertibled
from monai_sasm.transforms.slice_alignment import AlignSlicesd
from monai_sasm.transforms.thick_slices import ThickSlicesd
from monai_sasm.transforms.volumes import FromWorkingScaled, LoadVolumed, SaveVolumed, ToWorkingScaled
from tests.transforms.phantoms import head, oblique, tensor

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
KINDS = [
    ToWorkingScaleInvertibled("image", "MR"),
    LowResolutionMrd("image", factor=2, scale=700),
    ThickSlicesd("image", 2),
    AlignSlicesd("image"),
    CorrectBiasFieldd("image", mask_key="mask", iterations=(2,)),
]


def data_of(image: torch.Tensor) -> dict[Hashable, Any]:
    return {"image": image, "mask": (image.detach() > 100).to(image)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("step", KINDS, ids=lambda step: type(step).__name__)
def test_there_and_back(step: Any, kind: torch.dtype, device: str) -> None:
    array = head((24, 28, 10)).astype(np.float32)
    plain = tensor(array, oblique((2, 2, 4))).to(kind)
    expected = step(data_of(plain.float()))
    found = step(data_of(plain.to(device).requires_grad_()))
    back = step.inverse(found)["image"]
    assert (found["image"].device.type, back.device.type) == (device, device)
    for one, other in ((found["image"], expected["image"]), (back, step.inverse(expected)["image"])):
        one, other = (image.as_tensor().detach().cpu().float() for image in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def _run(step: MapTransform, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    return dict(step(data))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_files_are_written(tmp_path: Path, kind: torch.dtype, device: str) -> None:
    source = tmp_path / "in" / "a.nii.gz"
    source.parent.mkdir()
    array = np.rint(40 * head((24, 28, 10)) + 1)  # up to 28,000, whose changes half precision cannot hold in this unit
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), np.diag([2.0, 2, 4, 1])), source)
    places = str(tmp_path / "out"), str(tmp_path / "in")
    data = _run(LoadVolumed("image", "MR"), {"image": str(source)})
    data = _run(ToWorkingScaled("image", scaling_for), data)
    for key in ("image", "pred"):
        data[key] = data["image"].to(device, kind)
    data["pred"] = (data["pred"] + 4).requires_grad_()
    data["weights"] = torch.ones(1, 1, 24, 28, 10, dtype=kind, device=device)
    data["labels"] = data["image"] > 0.5
    data = _run(FromWorkingScaled("pred", scaling_for), data)
    scale = scaling_for(data["image_source"].volume).scale
    change = data["pred"].as_tensor().detach().cpu() - torch.from_numpy(data["image_source"].volume.array)
    assert float(change.mean()) == pytest.approx(4 * scale, rel=1e-2)
    saver = SaveVolumed("pred", *places, "bundle", derivation=lambda: Derivation("monai_sasm", "0", {}, {}))
    for key in ("pred", "image"):
        data["pred"] = data[key].to(kind) if key == "image" else data[key]
        saver.overwrite = key == "image"
        saver(data)
    written = nibabel.load(tmp_path / "out" / "a.nii.gz").get_fdata()
    np.testing.assert_array_equal(written, np.rint(data["image"].detach().float().cpu().numpy()[0]))
    SaveMapsd("weights", ["all"], *places)(data)
    SaveLabelMapd("labels", places[0])({**data, "labels": data["labels"].to(kind)})
    assert nibabel.load(tmp_path / "out" / "a_weight-all.nii.gz").get_fdata().min() == 1
    assert nibabel.load(tmp_path / "out" / "a_seg.nii.gz").get_fdata().sum() == int(data["labels"].sum())


def test_pictures_of_what_has_a_gradient(tmp_path: Path) -> None:
    image = torch.rand(3, 4, 5, dtype=torch.bfloat16).requires_grad_()
    data = {"image": image, "pred": image, "image_source": str(tmp_path / "a.png")}
    SaveComparisond("pred", str(tmp_path / "out"), str(tmp_path / "a.png"))(data)
    assert (tmp_path / "out" / "pictures" / "a.png").is_file()
