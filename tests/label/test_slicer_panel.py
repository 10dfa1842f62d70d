"""The 3D Slicer module's thin layer of Slicer, against exactly the calls it may make, and the real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.label.conftest import OBLIQUE, RunningServer
from tests.label.slicer_stub import Scene, Settings, VolumeNode, slicer_with
from tests.label.test_slicer import MODULE, head_in_slicer, wait_for


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
    source.transform = "registration"
    panel = make_panel(module)
    assert not panel.restoreButton.enabled
    panel.address.text = server.with_token
    panel.connectButton.signals["clicked()"]()
    assert panel.restoreButton.enabled
    assert Settings.kept == {"SASM/server": server.with_token}
    panel.model.currentIndex = [data for _, data in panel.model.items].index("noise_mri_unet")
    panel.restoreButton.signals["clicked()"]()
    assert panel.status.text == "Choose a volume with voxels first."
    panel.input.node = VolumeNode("empty", np.zeros((0, 0, 0)), matrix)
    panel.restoreButton.signals["clicked()"]()
    assert panel.restoration is None
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
    np.testing.assert_array_equal(restored.ijk_to_ras, matrix)  # its own, without the transform, which is shared
    assert restored.transform == change.transform == "registration"
    assert "DICOM.instanceUIDs" not in restored.attributes
    assert "DICOM.instanceUIDs" in source.attributes
    assert (restored.display.window, restored.display.level, restored.display.automatic) == (350, 40, False)
    assert "Diverging" in change.display.color
    assert change.display.level == 0
    assert restored.display.thresholded
    assert not change.display.thresholded
    for composite in scene.composites():
        assert (composite.background, composite.foreground) == (source.GetID(), restored.GetID())
        assert (composite.opacity, composite.linked, composite.hot) == (1.0, True, True)
    panel.blend.signals["valueChanged(double)"](0.25)
    assert {composite.opacity for composite in scene.composites()} == {0.25}


def test_change_map_and_side_by_side(scene: Scene, module: Any) -> None:
    voxels = np.ones((2, 3, 4), np.int16)
    nodes = [scene.add(VolumeNode(name, voxels, OBLIQUE), 1) for name in ("in", "out", "change")]
    panel = make_panel(module)
    panel.on_show()  # nothing to show yet
    assert scene.composites()[0].background is None
    panel.shown, panel.changeBox.checked = tuple(nodes), True
    panel.changeBox.signals["toggled(bool)"](True)
    red, yellow = scene.composites()
    assert (red.background, red.foreground, red.opacity) == ("id of out", "id of change", 0.5)
    left, right = scene.manager.widgets.values()
    left.field = (90.0, 80.0, 1.0)
    panel.besideBox.checked = True
    panel.besideBox.signals["toggled(bool)"](True)
    assert scene.manager.layout == 29
    assert (red.background, red.foreground) == ("id of in", None)
    assert (yellow.background, yellow.foreground) == ("id of out", "id of change")
    np.testing.assert_array_equal(right.plane.values, left.plane.values)  # the same slice, and not only its direction
    assert right.plane.values[2, 3] == 12
    assert right.current
    assert right.field == left.field
    assert red.linked
    assert yellow.linked
    panel.besideBox.checked = panel.changeBox.checked = False
    panel.changeBox.signals["toggled(bool)"](False)
    assert panel.blend.value == 1
    assert scene.manager.layout == 3
    assert right.plane.values[2, 3] == -7
    assert right.current
    assert (yellow.background, yellow.foreground) == ("id of in", "id of out")
    scene.nodes.remove(nodes[0])
    panel.changeBox.checked = True
    panel.on_show()  # the volume is gone: the views stay as they are
    assert yellow.background == "id of in"


class Done:
    """A restoration of two slices that has ended well."""

    state, progress, reason = "done", 1.0, ""
    restored = change = np.zeros((2, 3, 4), np.float32)

    def wait(self, seconds: float) -> bool:
        return True

    def cancel(self) -> None:
        self.state = "cancelled"


def test_a_volume_removed_or_resampled_meanwhile_is_not_shown(scene: Scene, module: Any) -> None:
    panel = make_panel(module)
    panel.restoration, panel.source = Done(), VolumeNode("gone", np.zeros((2, 3, 4)), OBLIQUE)
    panel.on_tick()
    assert "removed meanwhile" in panel.status.text
    assert not scene.nodes
    panel.restoration, panel.source = Done(), scene.add(VolumeNode("other", np.zeros((4, 3, 4)), OBLIQUE), 1)
    panel.on_tick()
    assert "resampled meanwhile" in panel.status.text
    assert len(scene.nodes) == 1


def test_an_unchanged_volume_is_said(scene: Scene, module: Any) -> None:
    panel = make_panel(module)
    panel.restoration, panel.source = Done(), scene.add(VolumeNode("clean", np.zeros((2, 3, 4)), OBLIQUE), 1)
    panel.on_tick()
    assert "nothing was found to restore" in panel.status.text
    assert len(scene.nodes) == 3


def test_cancelling_and_closing(module: Any) -> None:
    panel = make_panel(module)
    panel.restoration = running = Done()
    panel.restoreButton.signals["clicked()"]()
    assert running.state == "cancelled"
    assert not panel.restoreButton.enabled
    panel.on_tick()
    assert panel.restoration is None
    assert panel.restoreButton.enabled
    panel.restoration = running = Done()
    panel.cleanup()
    assert running.state == "cancelled"
    assert not panel.timer.running
