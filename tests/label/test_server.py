"""The real server answers what ``sasm restore`` writes, whatever way the image and the request come."""

from __future__ import annotations

import gzip
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from PIL import Image

from monai_sasm.bundles import available, read_metadata
from monai_sasm.cli.main import main
from monai_sasm.io.formats import open_images
from monai_sasm.io.nifti.export import on_nifti_axes
from monai_sasm.label.segmenting import Segmenter
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.label.conftest import Answer, RunningServer, form

STOCK = {"result_extension": ".nrrd", "result_dtype": "uint8"}  # what Slicer's MONAI Label module always asks for
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti(answer: Answer) -> nibabel.Nifti1Image:
    assert answer.status == 200, answer.body[:300]
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.body))


def nrrd(answer: Answer, folder: Path) -> SimpleITK.Image:
    assert answer.status == 200, answer.body[:300]
    (folder / "answer.nrrd").write_bytes(answer.body)
    return SimpleITK.ReadImage(str(folder / "answer.nrrd"))


def affine_of(image: SimpleITK.Image) -> NDArray[np.float64]:
    """Voxel to RAS mm."""
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return RAS @ nibabel.affines.from_matvec(matrix, image.GetOrigin())


def cli_restored(source: Path, target: Path, *options: str) -> nibabel.Nifti1Image:
    """What ``sasm restore`` makes of a NIfTI file, in this environment, with other versions of the libraries."""
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(source), "-o", str(target), "--device", "cpu", "-q", *options])
    assert ended.value.code == 0
    return nibabel.load(target)


@pytest.fixture(scope="module")
def head(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> nibabel.Nifti1Image:
    folder = tmp_path_factory.mktemp("cli")
    return cli_restored(server.studies / "head.nii.gz", folder / "head.nii.gz", "--modality", "MR")


def assert_equal(found: NDArray[Any], expected: NDArray[Any], source: NDArray[Any]) -> None:
    """Equal within float rounding of values as large as these, and not because nothing was done."""
    assert found.dtype == np.float32
    assert np.abs(expected - source).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(source).max(), rtol=0)


def test_everything_installed_is_listed(server: RunningServer) -> None:
    models = server.ask("/info/").content["models"]
    for name, root in available().items():
        section = read_metadata(root)["sasm"]
        there = (root / "models" / "model.pt").is_file()
        if section["role"] == "expert" and there:
            assert (models[name]["type"], models[name]["output_type"]) == ("others", "image")
            assert models[name]["modality"] == section["modality"]
        elif section["role"] == "segmenter" and there:
            for task in (name, f"restore_then_{name}"):
                assert models[task]["type"] == "segmentation"
                assert models[task]["labels"]
    assert {"sasm_ct", "sasm_mr", "sasm_photo"} <= set(models)


def test_a_nifti_by_its_name(server: RunningServer, head: nibabel.Nifti1Image) -> None:
    source = nibabel.load(server.studies / "head.nii.gz")
    found = nifti(server.infer("sasm_mr", image="head"))
    assert_equal(np.asarray(found.dataobj), head.get_fdata(), source.get_fdata())
    np.testing.assert_array_equal(found.affine, source.affine)


def test_slicers_uint8_is_not_obeyed(server: RunningServer, head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    source = nibabel.load(server.studies / "head.nii.gz")
    found = nrrd(server.infer("sasm_mr", image="head", **STOCK), tmp_path)
    assert_equal(SimpleITK.GetArrayFromImage(found).T, head.get_fdata(), source.get_fdata())
    np.testing.assert_allclose(affine_of(found), source.affine, atol=1e-5)


def test_an_upload_with_parameters(server: RunningServer, tmp_path: Path) -> None:
    path = server.studies / "head.nii.gz"
    options = ["--modality", "MR", "--expert", "noise_mri_unet", "--strength", "0.5", "--sigma", "50"]
    expected = cli_restored(path, tmp_path / "half.nii.gz", *options)
    found = nifti(server.infer("noise_mri_unet", upload=("head.nii.gz", path.read_bytes()), strength=0.5, sigma=50))
    assert_equal(np.asarray(found.dataobj), expected.get_fdata(), nibabel.load(path).get_fdata())


def test_a_folder_of_dicom(server: RunningServer) -> None:
    folder = server.studies / "ct"
    volume = next(open_images(folder))
    done = Restorer("cpu")(volume, Options(expert="lowdose_ct_unet")).volume
    expected, affine = on_nifti_axes(done.array[0], done)
    for image in (str(folder), "ct"):  # by its path, and by its name in the folder of studies
        found = nifti(server.infer("lowdose_ct_unet", image=image))
        assert_equal(np.asarray(found.dataobj), expected, on_nifti_axes(volume.array[0], volume)[0])
        np.testing.assert_allclose(found.affine, affine, atol=1e-5)


def test_a_photo_comes_back_as_the_file_it_was(server: RunningServer, tmp_path: Path) -> None:
    target, options = tmp_path / "cat.png", ["--device", "cpu", "-q", "--expert", "noise_photo_unet"]
    with pytest.raises(SystemExit):
        main(["restore", str(server.studies / "cat.png"), "-o", str(target), *options])
    answer = server.infer("noise_photo_unet", upload=("cat.png", (server.studies / "cat.png").read_bytes()))
    (tmp_path / "answer.png").write_bytes(answer.body)
    difference = np.asarray(Image.open(tmp_path / "answer.png"), int) - np.asarray(Image.open(target), int)
    assert np.abs(difference).max() <= 1  # a value between two levels may be rounded either way
    assert (difference != 0).mean() < 1e-3


def test_segment_and_restore_first(server: RunningServer, head: nibabel.Nifti1Image, tmp_path: Path) -> None:
    name = "segment_hippocampus_unet"
    segmenter = Segmenter(available()[name], torch.device("cpu"))
    nibabel.save(head, tmp_path / "restored.nii.gz")
    for task, path in ((name, server.studies / "head.nii.gz"), (f"restore_then_{name}", tmp_path / "restored.nii.gz")):
        expected, affine = segmenter(next(open_images(path, Modality.MR)))
        found = nrrd(server.infer(task, image="head", **STOCK), tmp_path)
        assert found.GetPixelID() == SimpleITK.sitkUInt8
        assert (expected != SimpleITK.GetArrayFromImage(found).T).mean() < 1e-3
        np.testing.assert_allclose(affine_of(found), affine, atol=1e-5)
    report = server.infer(f"restore_then_{name}", image="head", output="json").content
    assert report["label_names"] == {"anterior": 1, "posterior": 2}
    assert {name, "gate_mobilenet"} <= set(report["models"])


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "reason"),
    [
        ("no_model", "head", {}, 404, "no model 'no_model'"),
        ("sasm_mr", "nobody", {}, 404, "no such image"),
        ("sasm_mr", "", {"job": "0"}, 404, "no job"),
        ("sasm_ct", "cat", {}, 422, "expected one CT image"),
        ("sasm_mr", "head", {"strength": "much"}, 422, "strength must be a number"),
        ("sasm_mr", "head", {"expert": "lowdose_ct_unet"}, 422, "expert must be one of gate"),
        ("sasm_mr", "head", {"result_extension": ".mha"}, 422, "is written as"),
        ("sasm_mr", "head", {"save_label": True, "label_tag": "../../../tmp/x"}, 422, "label_tag must"),
        ("sasm_mr", "head", {"save_label": True, "label_tag": "final"}, 422, "label_tag final is for labels"),
        ("sasm_mr", "head", {"save_label": True, "background": True}, 422, "a plain request"),
        ("sasm_mr", "head.nii.gz", {"save_label": True}, 422, "named as MONAI Label lists it"),
        ("sasm_photo", "/usr/share/pixmaps", {}, 404, "no such image"),
        ("sasm_mr", "../outside.nii.gz", {}, 404, "no such image"),
        ("sasm_mr", "link/outside.nii.gz", {}, 404, "no such image"),
        ("sasm_mr", ".", {}, 404, "no such image"),
        ("sasm_mr", "x" * 5000, {}, 404, "no such image"),
        ("sasm_mr", "a\0b", {}, 404, "no such image"),
    ],
)
def test_refusals_say_why(
    server: RunningServer, model: str, image: str, params: dict[str, Any], status: int, reason: str
) -> None:
    answer = server.infer(model, image=image or "job", output="json", **params)
    assert answer.status == status
    assert reason in answer.content["detail"]


def test_a_file_of_somebody_else_among_the_temporary_ones_is_no_upload(server: RunningServer) -> None:
    content = (server.studies / "head.nii.gz").read_bytes()
    with tempfile.NamedTemporaryFile(suffix=".nii.gz") as file:
        file.write(content)
        file.flush()
        answer = server.infer("sasm_mr", image=file.name, output="json")
    assert (answer.status, "no such image" in answer.content["detail"]) == (404, True)


@pytest.mark.parametrize("name", ["Doe^John.19700101.nii.gz", "../../x;rm -rf $HOME.nii.gz", "Ü 漢字'\u202e.nii.gz"])
def test_an_upload_may_be_called_anything(server: RunningServer, head: nibabel.Nifti1Image, name: str) -> None:
    content = (server.studies / "head.nii.gz").read_bytes()
    found = nifti(server.infer("sasm_mr", upload=(name, content)))
    np.testing.assert_allclose(found.dataobj, head.get_fdata(), atol=1e-4 * np.abs(head.get_fdata()).max())


def test_a_session(server: RunningServer, head: nibabel.Nifti1Image) -> None:
    """How viewers send an image once, and ask for several results."""
    body, kind = form({}, ("files", "head.nii.gz", (server.studies / "head.nii.gz").read_bytes()))
    session = server.ask("/session/", body, kind, "PUT").content["session_id"]
    found = nifti(server.infer("sasm_mr", session_id=session))
    np.testing.assert_allclose(found.dataobj, head.get_fdata(), atol=1e-4 * np.abs(head.get_fdata()).max())


def test_requests_at_once_are_all_answered_rightly(server: RunningServer, head: nibabel.Nifti1Image) -> None:
    asked = [("sasm_mr", "head"), ("lowdose_ct_unet", "ct"), ("sasm_mr", "head"), ("sasm_mr", "nobody")]
    with ThreadPoolExecutor(len(asked)) as clients:
        answers = list(clients.map(lambda what: server.infer(what[0], image=what[1]), asked))
    assert [answer.status for answer in answers] == [200, 200, 200, 404]
    first, series, second = (nifti(answer) for answer in answers[:3])
    np.testing.assert_array_equal(first.dataobj, second.dataobj)
    np.testing.assert_allclose(first.dataobj, head.get_fdata(), atol=1e-4 * np.abs(head.get_fdata()).max())
    assert series.shape == (64, 64, 4)


def test_a_label_is_kept_among_the_studies_when_asked(server: RunningServer) -> None:
    name = "segment_hippocampus_unet"
    answer = server.infer(name, image="head", output="json", save_label=True, label_tag="final")
    assert answer.status == 200
    kept = nibabel.load(server.studies / "labels" / "final" / "head.nii.gz")
    assert kept.get_data_dtype() == np.uint8


def test_a_restored_image_takes_the_place_of_no_label(server: RunningServer) -> None:
    assert server.infer("segment_hippocampus_unet", image="head", output="json", save_label=True).status == 200
    label = server.studies / "labels" / "original" / "head.nii.gz"
    before = label.read_bytes()
    assert server.infer("noise_mri_unet", image="head", output="json", save_label="false").status == 200
    assert server.infer("noise_mri_unet", image="head", output="json", save_label=True, label_tag="m").status == 200
    assert nibabel.load(server.studies / "labels" / "m" / "head.nii.gz").get_data_dtype() == np.float32
    assert label.read_bytes() == before


def test_a_batch_of_the_studies_goes_on_after_a_failure(server: RunningServer) -> None:
    body = b'{"images": ["cat", "head"], "result_extension": ".nii.gz"}'  # no label_tag: each has one of its own
    answer = server.ask("/batch/infer/noise_mri_unet?images=all&run_sync=true", body, "application/json")
    assert answer.status == 200, answer.body
    end = time.monotonic() + 120
    while not (written := list(server.studies.glob("labels/restored/*"))) and time.monotonic() < end:
        time.sleep(0.2)
    assert [path.name for path in written] == ["head.nii.gz"]
    assert nibabel.load(written[0]).get_data_dtype() == np.float32
    assert "=> cat" not in server.log.read_text(errors="replace")


def test_another_page_in_the_browser_may_not_read_the_images(server: RunningServer) -> None:
    for method in ("GET", "OPTIONS"):
        asked = {"Origin": "http://other.example", "Access-Control-Request-Method": "DELETE"}
        try:
            asked["Authorization"] = f"Bearer {server.token}"
            headers = urlopen(Request(f"{server.address}/info/", headers=asked, method=method), timeout=60).headers
        except HTTPError as error:
            headers = error.headers
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_nobody_is_named_in_the_log(server: RunningServer) -> None:
    """Names of files can be names of patients, and so can the parameters of a request."""
    for name in ("Doe^John.19700101.nii.gz", "Doe^Jane.nii.gz"):
        server.infer("sasm_mr", upload=(name, b"no image"), patient="Doe^Jack")
    server.infer("sasm_mr", image="Doe^Jim", output="json")
    logs = [server.log, *(server.log.parent / "app").rglob("*.log")]
    assert len(logs) > 1
    for log in logs:
        text = log.read_text(errors="replace")
        assert "Initializing App" in text
        for word in ("Doe", "1970", "head.nii.gz", "head"):
            assert word not in text, f"{word} in {log.name}"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/info/", {"Authorization": None}, 401),
        ("GET", "/datastore/image?image=head", {"Authorization": None}, 401),
        ("GET", "/datastore/image?image=head", {"Host": "evil.example"}, 403),
        ("POST", "/infer/segment_hippocampus_unet?image=head&output=json", {"Origin": "http://evil.example"}, 403),
        ("PUT", "/datastore/image?image=../../x", {}, 403),
        ("PUT", "/datastore/label?image=../../x&tag=final", {}, 422),
        ("POST", "/reload", {}, 403),
        ("GET", "/auth/", {"Authorization": None}, 200),
    ],
)
def test_strangers_get_nothing_and_change_nothing(
    server: RunningServer, method: str, path: str, headers: dict[str, str | None], status: int
) -> None:
    """The guard by itself: ``tests/hostile/test_label_guard.py``."""
    label = server.studies / "labels" / "final" / "head.nii.gz"
    before = label.read_bytes() if label.is_file() else None
    fields = {"params": '{"save_label": true, "label_tag": "final"}'}
    body, kind = form(fields, ("file", "x.nii.gz", b"x")) if method != "GET" else (None, "text/plain")
    assert server.ask(path, body, kind, method, **headers).status == status
    assert (label.read_bytes() if label.is_file() else None) == before
    assert not list(server.studies.parent.parent.glob("x*"))


def test_a_label_is_saved_by_who_has_the_token(server: RunningServer) -> None:
    body, kind = form({}, ("label", "l.nii.gz", (server.studies / "head.nii.gz").read_bytes()))
    assert server.ask("/datastore/label?image=head&tag=mine", body, kind, "PUT").status == 200
    assert (server.studies / "labels" / "mine" / "head.nii.gz").is_file()
