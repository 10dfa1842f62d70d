"""3D Slicer module: restore a volume on a MONAI Label server with the monai_sasm app, and compare it with its source.

In Slicer: Edit > Application Settings > Modules > Additional module paths: add the folder of this file, restart. What
can be said without Slicer is said in ``SASMLib``; this file holds the widgets and the scene.
"""

from __future__ import annotations

import ctk
import numpy as np
import qt
import slicer
import vtk
from SASMLib.restoration import Restoration, change_window
from SASMLib.server import Server, ServerError
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

ADDRESS = "http://127.0.0.1:8000"
ADDRESS_SETTING = "SASM/server"
DIVERGING = "vtkMRMLColorTableNodeFileDivergingBlueRed.txt"
TICK_MS, TURN_S = 100, 0.03  # how often the interface looks, and how long it lets the other thread run


class SASM(ScriptedLoadableModule):
    """Name and place of the module in Slicer's menu."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "SASM Restoration"
        parent.categories = ["Filtering.Denoising"]
        parent.contributors = ["The monai_sasm developers"]
        parent.helpText = "Restores CT and MR volumes on a MONAI Label server that runs the monai_sasm app."
        parent.acknowledgementText = "For research; not for diagnosis or treatment."


class SASMWidget(ScriptedLoadableModuleWidget):
    """The panel: server, volume, model and strength; progress; and how the result is compared."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SASMLogic()
        self.server = None
        self.restoration = None
        self.shown = None  # input, restored and change of the last restoration
        self.timer = qt.QTimer()
        self.timer.setInterval(TICK_MS)
        self.timer.connect("timeout()", self.on_tick)

        form = self.section("Restore")
        self.address = qt.QLineEdit(qt.QSettings().value(ADDRESS_SETTING, ADDRESS))
        self.connectButton = qt.QPushButton("Connect")
        self.connectButton.connect("clicked()", self.on_connect)
        form.addRow("Server:", self.address)
        form.addRow(self.connectButton)
        self.input = slicer.qMRMLNodeComboBox()
        self.input.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.input.showChildNodeTypes = False  # neither labels nor colour pictures
        self.input.addEnabled = self.input.removeEnabled = self.input.noneEnabled = False
        self.input.setMRMLScene(slicer.mrmlScene)
        form.addRow("Volume:", self.input)
        self.model = qt.QComboBox()
        form.addRow("Model:", self.model)
        self.strength = self.slider(1.0)
        form.addRow("Strength:", self.strength)
        self.restoreButton = qt.QPushButton("Restore")
        self.restoreButton.enabled = False
        self.restoreButton.connect("clicked()", self.on_restore)
        form.addRow(self.restoreButton)
        self.bar = qt.QProgressBar()
        self.bar.setRange(0, 100)
        form.addRow(self.bar)
        self.status = qt.QLabel("Connect to a server first.")
        self.status.wordWrap = True
        form.addRow(self.status)

        form = self.section("Compare")
        self.blend = self.slider(1.0)
        self.blend.connect("valueChanged(double)", self.on_blend)
        form.addRow("Input to restored:", self.blend)
        self.changeBox = qt.QCheckBox("Change map over the restored volume")
        self.changeBox.connect("toggled(bool)", self.on_change_box)
        form.addRow(self.changeBox)
        self.besideBox = qt.QCheckBox("Input and restored side by side")
        self.besideBox.connect("toggled(bool)", self.on_show)
        form.addRow(self.besideBox)
        self.layout.addStretch(1)

    def cleanup(self):
        """The module is closed or reloaded: nobody waits for the result any more."""
        self.timer.stop()
        if self.restoration is not None:
            self.restoration.cancel()

    def section(self, title):
        """A collapsible part of the panel; its form."""
        button = ctk.ctkCollapsibleButton()
        button.text = title
        self.layout.addWidget(button)
        return qt.QFormLayout(button)

    def slider(self, value):
        """A slider from 0 to 1."""
        slider = ctk.ctkSliderWidget()
        slider.minimum, slider.maximum, slider.singleStep, slider.decimals = 0.0, 1.0, 0.05, 2
        slider.value = value
        return slider

    def on_connect(self):
        """Ask the server what it offers."""
        self.model.clear()
        try:
            self.server = Server(self.address.text)
            models = self.server.models()
        except (ServerError, ValueError) as error:
            models = []
            self.status.text = str(error)
        else:
            qt.QSettings().setValue(ADDRESS_SETTING, self.address.text)
            self.status.text = f"{len(models)} models. Choose one made for the kind of volume."
        for model in models:
            self.model.addItem(f"{model.name} ({model.modality})", model.name)
        self.restoreButton.enabled = bool(models)

    def on_restore(self):
        """Start, or cancel what runs."""
        if self.restoration is not None:
            self.restoration.cancel()
            self.restoreButton.enabled = False  # until the other thread has noticed
            return
        self.source = self.input.currentNode()
        if self.source is None or self.source.GetImageData() is None:
            self.status.text = "Choose a volume with voxels first."
            return
        voxels, ijk_to_ras = self.logic.read(self.source)
        model = self.model.itemData(self.model.currentIndex)
        self.restoration = Restoration(self.server, model, voxels, ijk_to_ras, self.strength.value)
        self.restoration.start()
        self.restoreButton.text = "Cancel"
        self.timer.start()

    def on_tick(self):
        """Give the other thread its turn, and show how far it is."""
        ended = self.restoration.wait(TURN_S)
        self.bar.value = round(100 * self.restoration.progress)
        self.status.text = self.restoration.reason or self.restoration.state
        if not ended:
            return
        restoration, self.restoration = self.restoration, None
        self.timer.stop()
        self.restoreButton.text, self.restoreButton.enabled = "Restore", True
        if restoration.state != "done":
            self.bar.value = 0
        elif not slicer.mrmlScene.IsNodePresent(self.source):
            self.status.text = "The volume was removed meanwhile; its restoration is dropped."
        elif self.source.GetImageData() is None or self.logic.read(self.source)[0].shape != restoration.restored.shape:
            self.status.text = "The volume was resampled meanwhile; its restoration is dropped."
        else:
            restored = self.logic.add(self.source, restoration.restored, "restored")
            change = self.logic.add_change(self.source, restoration.change)
            if not restoration.change.any():
                self.status.text = "Done, but nothing was found to restore: the volume is as it was."
            self.shown = self.source, restored, change
            self.on_show()

    def on_show(self, *_):
        """Show what the boxes say; the slider fades the upper layer."""
        if self.shown is not None and all(slicer.mrmlScene.IsNodePresent(node) for node in self.shown):
            self.logic.show(*self.shown, self.changeBox.checked, self.besideBox.checked, self.blend.value)

    def on_change_box(self, checked):
        """The change lies half through over the restored volume; without it, the restored volume is on top."""
        self.blend.value = 0.5 if checked else 1.0
        self.on_show()

    def on_blend(self, value):
        """Fade between the lower and the upper layer."""
        self.logic.blend(value)


class SASMLogic(ScriptedLoadableModuleLogic):
    """The scene: volumes out of it and into it, and what the slice views show."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.layout_before = None
        self.plane_before = None  # of the right view, while it follows the left one

    def read(self, node):
        """Voxels ``(K, J, I)`` and matrix to RAS mm of a volume; a transform above it stays out of both."""
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVolume(node), slicer.util.arrayFromVTKMatrix(matrix)

    def add(self, source, voxels, suffix):
        """A scalar volume on the grid of ``source``, beside it in the tree of data, in the same window."""
        name = f"{source.GetName()} {suffix}"
        if source.GetDisplayNode() is None:
            source.CreateDefaultDisplayNodes()
        node = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, source, name)
        node.RemoveAttribute("DICOM.instanceUIDs")  # it is not the series it came from
        slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(voxels, dtype=np.float32))
        window = source.GetDisplayNode()
        display = node.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(window.GetWindow(), window.GetLevel())
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        study = tree.GetItemParent(tree.GetItemByDataNode(source))
        tree.SetItemParent(tree.GetItemByDataNode(node), study)
        return node

    def add_change(self, source, change):
        """The change map: blue where the restored volume is darker, red where it is brighter."""
        node = self.add(source, change, "change")
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(DIVERGING)
        display.ApplyThresholdOff()  # that of the source is about its own values
        display.SetWindowLevel(change_window(change), 0.0)
        return node

    def show(self, source, restored, change, with_change, beside, opacity):
        """Linked slice views: restored over input, or the change over restored; or input left and the rest right."""
        lower, upper = (restored, change) if with_change else (source, restored)
        slicer.util.setSliceViewerLayers(background=lower, foreground=upper, foregroundOpacity=opacity)
        manager = slicer.app.layoutManager()
        if beside:
            self.side_by_side(manager)
            left, right = (manager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("Red", "Yellow"))
            left.SetBackgroundVolumeID(source.GetID())
            left.SetForegroundVolumeID(None)
            right.SetBackgroundVolumeID(restored.GetID())
            right.SetForegroundVolumeID(change.GetID() if with_change else None)
        elif self.layout_before is not None:
            manager.setLayout(self.layout_before)
            copy_plane(self.plane_before, manager.sliceWidget("Yellow").mrmlSliceNode())
            self.layout_before = self.plane_before = None
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)

    def side_by_side(self, manager):
        """Two slice views of the same plane; linked views move together only from the same place on."""
        left, right = (manager.sliceWidget(name).mrmlSliceNode() for name in ("Red", "Yellow"))
        if self.layout_before is None:
            self.layout_before = manager.layout
            self.plane_before = vtk.vtkMatrix4x4()
            self.plane_before.DeepCopy(right.GetSliceToRAS())
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        copy_plane(left.GetSliceToRAS(), right)
        right.SetFieldOfView(*left.GetFieldOfView())

    def blend(self, opacity):
        """Opacity of the upper layer in every slice view."""
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            composite.SetForegroundOpacity(opacity)


def copy_plane(slice_to_ras, node):
    """Let a slice view show a plane."""
    node.GetSliceToRAS().DeepCopy(slice_to_ras)
    node.UpdateMatrices()
