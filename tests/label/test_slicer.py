"""The 3D Slicer module: its logic against the real server, its thin Slicer layer against the calls it may make."""

from __future__ import annotations

import ast
import gzip
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from monai_sasm.label.kitchen import Kitchen
from monai_sasm.label.offers import offers
from tests.data import CHECKOUT
from tests.label.conftest import OBLIQUE, RunningServer
from tests.label.slicer_stub import Scene, Settings, VolumeNode, slicer_with

MODULE = CHECKOUT / "monai_sasm" / "slicer" / "SASM"
SLICERS_OWN = {"slicer", "qt", "ctk", "vtk", "numpy", "SASMLib"}
OLDEST_PYTHON = (3, 9)


@pytest.fixture(autouse=True)
def library_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MODULE))


def head_in_slicer(server: RunningServer) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels and matrix as Slicer holds the file: K, J, I."""
    image = nibabel.load(server.studies / "head.nii.gz")
    return np.asarray(image.dataobj).T, image.affine


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_needs_nothing_that_slicer_has_not() -> None:
    for path in MODULE.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=OLDEST_PYTHON)
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in SLICERS_OWN | sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "uint32"])
def test_a_volume_becomes_a_file_that_others_read(dtype: str) -> None:
    from SASMLib.nifti import decode, encode

    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    content = encode(voxels, OBLIQUE)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels.T)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), [1.1, 1.2, 4], rtol=1e-6)
    back, matrix = decode(content)
    np.testing.assert_array_equal(back, voxels)
    assert back.dtype == (dtype if dtype not in ("float64", "uint32") else "float32")
    np.testing.assert_array_equal(matrix, image.affine)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"<html>", gzip.compress(b"\0" * 352)])
def test_another_answer_is_no_volume(content: bytes) -> None:
    from SASMLib.nifti import decode

    with pytest.raises(ValueError, match=r"no .*NIfTI"):
        decode(content)


def test_models_of_volumes_the_pipeline_first(server: RunningServer) -> None:
    from SASMLib.server import Server

    models = Server(server.address + "/").models()
    names = [model.name for model in models]
    assert names[:2] == ["sasm_ct", "sasm_mr"]
    assert {"lowdose_ct_unet", "noise_mri_unet"} <= set(names)
    assert {model.modality for model in models} == {"CT", "MR"}
    assert not any(name.startswith(("segment", "restore_then")) for name in names)


def test_no_server_is_said_in_one_sentence() -> None:
    from SASMLib.server import Server, ServerError

    with pytest.raises(ServerError, match="is the server running"):
        Server("127.0.0.1:9", timeout=2).models()
    with pytest.raises(ServerError, match="begins with http"):
        Server("file:///etc/passwd")


def test_a_restoration_is_what_sasm_restores(server: RunningServer) -> None:
    from SASMLib.restoration import Restoration
    from SASMLib.server import Server

    voxels, matrix = head_in_slicer(server)
    run = Restoration(Server(server.address), "noise_mri_unet", voxels, matrix, strength=0.5)
    run.start()
    seen = set()
    while not run.wait(0.01):
        seen.add((run.state, run.progress))
    assert (run.state, run.progress, run.reason) == ("done", 1.0, "")
    offer = next(offer for offer in offers() if offer.name == "noise_mri_unet")
    request = {"image": str(server.studies / "head.nii.gz"), "strength": 0.5}
    path, _ = Kitchen("cpu").prepare(offer, request)(lambda _: None)
    expected = np.asarray(nibabel.load(path).dataobj).T
    path.unlink()
    assert run.restored.dtype == np.float32
    np.testing.assert_allclose(run.restored, expected, atol=1e-4 * voxels.max())
    np.testing.assert_array_equal(run.change, run.restored - voxels)
    assert np.abs(run.change).max() > 1
    assert seen


def test_a_refusal_reaches_the_user(server: RunningServer) -> None:
    from SASMLib.restoration import Restoration
    from SASMLib.server import Server

    voxels, matrix = head_in_slicer(server)
    run = Restoration(Server(server.address), "noise_mri_unet", voxels, matrix, strength=2)
    run.start()
    assert run.wait(60)
    assert run.state == "failed"
    assert "strength must be between 0 and 1" in run.reason
    with pytest.raises(ValueError, match="failed"):
        _ = run.restored


def test_a_cancelled_job_ends_and_the_server_stays_awake(server: RunningServer) -> None:
    """While a large volume is restored, other requests are answered; after cancelling, the next job comes soon."""
    from SASMLib.nifti import encode
    from SASMLib.server import Server, ServerError

    voxels, matrix = head_in_slicer(server)
    there = Server(server.address)
    large = np.tile(voxels, (60, 4, 4))
    job = there.start("noise_mri_unet", encode(large, matrix), {})
    wait_for(lambda: 0 < there.state("noise_mri_unet", job)["progress"] < 1)
    with pytest.raises(ServerError, match="only a job that is done"):
        there.take("noise_mri_unet", job)
    there.cancel("noise_mri_unet", job)
    assert there.state("noise_mri_unet", job)["state"] == "cancelled"
    small = there.start("noise_mri_unet", encode(voxels, matrix), {})
    wait_for(lambda: there.state("noise_mri_unet", small)["state"] == "done")
    assert there.take("noise_mri_unet", small)
    with pytest.raises(ServerError, match="no job named"):
        there.take("noise_mri_unet", small)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def module(scene: Scene) -> Iterator[Any]:
    Settings.kept.clear()
    with slicer_with(scene, str(MODULE)) as loaded:
        yield loaded


def make_panel(module: Any) -> Any:
    panel = module.SASMWidget()
    panel.setup()
    return panel


def test_the_panel_from_connecting_to_blending(server: RunningServer, scene: Scene, module: Any) -> None:
    voxels, matrix = head_in_slicer(server)
    source = scene.add(VolumeNode("T1", voxels, matrix), study=7)
    panel = make_panel(module)
    assert not panel.restoreButton.enabled
    panel.address.text = server.address
    panel.connectButton.signals["clicked()"]()
    assert panel.restoreButton.enabled
    assert Settings.kept == {"SASM/server": server.address}
    panel.model.currentIndex = [data for _, data in panel.model.items].index("noise_mri_unet")
    panel.restoreButton.signals["clicked()"]()
    assert panel.status.text == "Choose a volume first."
    panel.input.node = source
    panel.restoreButton.signals["clicked()"]()
    assert panel.timer.running
    assert panel.restoreButton.text == "Cancel"
    wait_for(lambda: panel.timer.signals["timeout()"]() or not panel.timer.running)
    assert (panel.status.text, panel.bar.value, panel.restoreButton.text) == ("done", 100, "Restore")

    _, restored, change = scene.nodes
    assert [node.name for node in scene.nodes] == ["T1", "T1 restored", "T1 change"]
    assert scene.study == {"T1": 7, "T1 restored": 7, "T1 change": 7}
    assert restored.voxels.dtype == np.float32
    np.testing.assert_allclose(restored.voxels - voxels, change.voxels, atol=1e-3)
    np.testing.assert_array_equal(restored.ijk_to_ras, matrix)
    assert "DICOM.instanceUIDs" not in restored.attributes
    assert "DICOM.instanceUIDs" in source.attributes
    assert (restored.display.window, restored.display.level, restored.display.automatic) == (350, 40, False)
    assert "Diverging" in change.display.color
    assert change.display.level == 0
    for composite in scene.composites():
        assert (composite.background, composite.foreground) == (source.GetID(), restored.GetID())
        assert (composite.opacity, composite.linked) == (1.0, True)
    panel.blend.signals["valueChanged(double)"](0.25)
    assert {composite.opacity for composite in scene.composites()} == {0.25}


def test_change_map_and_side_by_side(scene: Scene, module: Any) -> None:
    voxels = np.ones((2, 3, 4), np.int16)
    nodes = [scene.add(VolumeNode(name, voxels, OBLIQUE), 1) for name in ("in", "out", "change")]
    panel = make_panel(module)
    panel.on_show()  # nothing to show yet
    assert scene.composites()[0].background is None
    panel.shown, panel.blend.value, panel.changeBox.checked = tuple(nodes), 0.5, True
    panel.changeBox.signals["toggled(bool)"](True)
    red, yellow = scene.composites()
    assert (red.background, red.foreground, red.opacity) == ("id of out", "id of change", 0.5)
    panel.besideBox.checked = True
    panel.besideBox.signals["toggled(bool)"](True)
    assert scene.manager.layout == 29
    assert (red.background, red.foreground) == ("id of in", None)
    assert (yellow.background, yellow.foreground) == ("id of out", "id of change")
    assert scene.manager.widgets["Yellow"].orientation == "Axial"
    assert red.linked
    assert yellow.linked
    panel.besideBox.checked = panel.changeBox.checked = False
    panel.on_show(False)
    assert scene.manager.layout == 3
    assert scene.manager.widgets["Yellow"].orientation == "Sagittal"
    assert (yellow.background, yellow.foreground) == ("id of in", "id of out")
    scene.nodes.remove(nodes[0])
    panel.changeBox.checked = True
    panel.on_show()  # the volume is gone: the views stay as they are
    assert yellow.background == "id of in"


def test_a_volume_removed_meanwhile_is_not_shown(scene: Scene, module: Any) -> None:
    class Done:
        state, progress, reason = "done", 1.0, ""

        def wait(self, seconds: float) -> bool:
            return True

        def cancel(self) -> None:
            self.state = "cancelled"

    panel = make_panel(module)
    panel.restoration, panel.source = Done(), VolumeNode("gone", np.zeros((1, 1, 1)), OBLIQUE)
    panel.on_tick()
    assert "removed meanwhile" in panel.status.text
    assert not scene.nodes
    panel.restoration = running = Done()
    panel.cleanup()
    assert running.state == "cancelled"


def test_slicer_finds_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    from monai_sasm.cli import main

    with pytest.raises(SystemExit):
        main(["slicer-module"])
    folder = Path(capsys.readouterr().out.strip())
    assert folder == MODULE
    assert (folder / f"{folder.name}.py").is_file()  # Slicer wants file, class and folder of one name
    assert "class SASM(ScriptedLoadableModule)" in (folder / "SASM.py").read_text()
