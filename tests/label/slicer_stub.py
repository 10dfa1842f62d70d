"""Stand-ins for the parts of 3D Slicer, Qt and VTK that our module calls, and no others.

Signatures are those of Slicer 5 (``Base/Python/slicer/util.py``, ``vtkSlicerVolumesLogic``, the MRML nodes). Whatever
else the module asked for would raise an AttributeError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

KEEP = "keep-current"


class Matrix:
    """``vtkMatrix4x4``."""

    def __init__(self) -> None:
        self.values = np.eye(4)

    def DeepCopy(self, other: Matrix) -> None:  # noqa: N802
        self.values = other.values.copy()


class Display:
    """``vtkMRMLScalarVolumeDisplayNode``."""

    def __init__(self) -> None:
        self.automatic, self.window, self.level, self.color = True, 350.0, 40.0, "vtkMRMLColorTableNodeGrey"
        self.thresholded = True

    def AutoWindowLevelOff(self) -> None:  # noqa: N802
        self.automatic = False

    def ApplyThresholdOff(self) -> None:  # noqa: N802
        self.thresholded = False

    def SetWindowLevel(self, window: float, level: float) -> None:  # noqa: N802
        self.window, self.level = window, level

    def GetWindow(self) -> float:  # noqa: N802
        return self.window

    def GetLevel(self) -> float:  # noqa: N802
        return self.level

    def SetAndObserveColorNodeID(self, color: str) -> None:  # noqa: N802
        self.color = color


class VolumeNode:
    """``vtkMRMLScalarVolumeNode``."""

    def __init__(self, name: str, voxels: NDArray[Any], ijk_to_ras: NDArray[np.float64]) -> None:
        self.name, self.voxels, self.ijk_to_ras = name, voxels, ijk_to_ras
        self.attributes = {"DICOM.instanceUIDs": "1.2 3.4"}
        self.display: Display | None = Display()
        self.transform: str | None = None

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def GetID(self) -> str:  # noqa: N802
        return f"id of {self.name}"

    def GetImageData(self) -> NDArray[Any] | None:  # noqa: N802
        return self.voxels if self.voxels.size else None

    def GetDisplayNode(self) -> Display | None:  # noqa: N802
        return self.display

    def CreateDefaultDisplayNodes(self) -> None:  # noqa: N802
        self.display = Display()

    def GetIJKToRASMatrix(self, matrix: Matrix) -> None:  # noqa: N802
        matrix.values = self.ijk_to_ras

    def RemoveAttribute(self, name: str) -> None:  # noqa: N802
        self.attributes.pop(name, None)


class Composite:
    """``vtkMRMLSliceCompositeNode``."""

    def __init__(self) -> None:
        self.background: str | None = None
        self.foreground: str | None = None
        self.opacity, self.linked, self.hot = 0.0, False, False

    def SetBackgroundVolumeID(self, node: str | None) -> None:  # noqa: N802
        self.background = node

    def SetForegroundVolumeID(self, node: str | None) -> None:  # noqa: N802
        self.foreground = node

    def SetForegroundOpacity(self, opacity: float) -> None:  # noqa: N802
        self.opacity = opacity

    def SetLinkedControl(self, linked: bool) -> None:  # noqa: N802
        self.linked = linked

    def SetHotLinkedControl(self, linked: bool) -> None:  # noqa: N802
        self.hot = linked


class SliceWidget:
    """``qMRMLSliceWidget``; also its ``vtkMRMLSliceNode``."""

    def __init__(self, offset: float) -> None:
        self.composite, self.plane, self.current, self.field = Composite(), Matrix(), False, (250.0, 250.0, 1.0)
        self.plane.values[2, 3] = offset

    def mrmlSliceCompositeNode(self) -> Composite:  # noqa: N802
        return self.composite

    def mrmlSliceNode(self) -> SliceWidget:  # noqa: N802
        return self

    def GetSliceToRAS(self) -> Matrix:  # noqa: N802
        self.current = False  # whoever writes into it says so by UpdateMatrices
        return self.plane

    def UpdateMatrices(self) -> None:  # noqa: N802
        self.current = True

    def GetFieldOfView(self) -> tuple[float, float, float]:  # noqa: N802
        return self.field

    def SetFieldOfView(self, x: float, y: float, z: float) -> None:  # noqa: N802
        self.field = (x, y, z)


class LayoutManager:
    """``qSlicerLayoutManager``."""

    def __init__(self) -> None:
        self.layout = 3
        self.widgets = {"Red": SliceWidget(12.0), "Yellow": SliceWidget(-7.0)}

    def setLayout(self, layout: int) -> None:  # noqa: N802
        self.layout = layout

    def sliceWidget(self, name: str) -> SliceWidget:  # noqa: N802
        return self.widgets[name]


class Scene:
    """``vtkMRMLScene``, ``vtkSlicerVolumesLogic`` and ``vtkMRMLSubjectHierarchyNode`` of one application."""

    def __init__(self) -> None:
        self.nodes: list[VolumeNode] = []
        self.study: dict[str, int] = {}
        self.manager = LayoutManager()

    def add(self, node: VolumeNode, study: int) -> VolumeNode:
        self.nodes.append(node)
        self.study[node.name] = study
        return node

    def IsNodePresent(self, node: VolumeNode) -> bool:  # noqa: N802
        return node in self.nodes

    def CloneVolume(self, scene: Scene, node: VolumeNode, name: str) -> VolumeNode:  # noqa: N802
        assert scene is self
        assert node.display is not None
        clone = VolumeNode(name, node.voxels.copy(), node.ijk_to_ras.copy())
        clone.transform = node.transform  # a clone is copied with the references of its source
        return self.add(clone, 0)

    def GetItemByDataNode(self, node: VolumeNode) -> str:  # noqa: N802
        return node.name

    def GetItemParent(self, item: str) -> int:  # noqa: N802
        return self.study[item]

    def SetItemParent(self, item: str, parent: int) -> None:  # noqa: N802
        self.study[item] = parent

    def composites(self) -> list[Composite]:
        return [widget.composite for widget in self.manager.widgets.values()]

    def set_layers(
        self,
        background: Any = KEEP,
        foreground: Any = KEEP,
        label: Any = KEEP,
        foregroundOpacity: float | None = None,  # noqa: N803
    ) -> None:
        """``slicer.util.setSliceViewerLayers``."""
        for composite in self.composites():
            composite.background, composite.foreground = background.GetID(), foreground.GetID()
            composite.opacity = composite.opacity if foregroundOpacity is None else foregroundOpacity

    def nodes_by_class(self, name: str) -> list[Composite]:
        """``slicer.util.getNodesByClass``."""
        assert name == "vtkMRMLSliceCompositeNode"
        return self.composites()


class Widget:
    """Any Qt widget: properties, signals, and the few methods that are called."""

    def __init__(self, text: Any = "") -> None:
        self.text, self.value, self.checked, self.enabled = text, 0.0, False, True
        self.signals: dict[str, Callable[..., None]] = {}
        self.items: list[tuple[str, str]] = []
        self.node: VolumeNode | None = None
        self.running = False

    def connect(self, signal: str, receiver: Callable[..., None]) -> None:
        self.signals[signal] = receiver

    def addItem(self, text: str, data: str) -> None:  # noqa: N802
        self.items.append((text, data))

    def clear(self) -> None:
        self.items.clear()

    def itemData(self, index: int) -> str:  # noqa: N802
        return self.items[index][1]

    currentIndex = 0  # noqa: N815

    def currentNode(self) -> VolumeNode | None:  # noqa: N802
        return self.node

    def setMRMLScene(self, scene: Scene) -> None: ...  # noqa: N802

    def setRange(self, low: int, high: int) -> None: ...  # noqa: N802

    def setInterval(self, milliseconds: int) -> None: ...  # noqa: N802

    def addRow(self, *widgets: Any) -> None: ...  # noqa: N802

    def addWidget(self, widget: Widget) -> None: ...  # noqa: N802

    def addStretch(self, stretch: int) -> None: ...  # noqa: N802

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Settings:
    """``QSettings``, kept between its instances."""

    kept: dict[str, str] = {}  # noqa: RUF012

    def value(self, key: str, default: str) -> str:
        return self.kept.get(key, default)

    def setValue(self, key: str, value: str) -> None:  # noqa: N802
        self.kept[key] = value


class ModuleBase:
    """``ScriptedLoadableModule``, its widget and its logic."""

    def __init__(self, parent: Any = None) -> None:
        self.parent, self.layout = parent, Widget()

    def setup(self) -> None: ...


@contextmanager
def slicer_with(scene: Scene, folder: str) -> Iterator[ModuleType]:
    """Our module as Slicer imports it: its folder on the path, Slicer's modules beside it."""
    qt_names = ("QTimer", "QLineEdit", "QPushButton", "QComboBox", "QProgressBar", "QLabel", "QCheckBox", "QFormLayout")
    slicer = SimpleNamespace(
        mrmlScene=scene,
        app=SimpleNamespace(layoutManager=lambda: scene.manager),
        modules=SimpleNamespace(volumes=SimpleNamespace(logic=lambda: scene)),
        qMRMLNodeComboBox=Widget,
        vtkMRMLLayoutNode=SimpleNamespace(SlicerLayoutSideBySideView=29),
        vtkMRMLSubjectHierarchyNode=SimpleNamespace(GetSubjectHierarchyNode=lambda scene: scene),
        util=SimpleNamespace(
            arrayFromVolume=lambda node: node.voxels,
            arrayFromVTKMatrix=lambda matrix: matrix.values,
            updateVolumeFromArray=lambda node, voxels: setattr(node, "voxels", voxels),
            setSliceViewerLayers=scene.set_layers,
            getNodesByClass=scene.nodes_by_class,
        ),
        ScriptedLoadableModule=SimpleNamespace(
            ScriptedLoadableModule=ModuleBase,
            ScriptedLoadableModuleLogic=ModuleBase,
            ScriptedLoadableModuleWidget=ModuleBase,
        ),
    )
    stubs: dict[str, Any] = {
        "slicer": slicer,
        "slicer.ScriptedLoadableModule": slicer.ScriptedLoadableModule,
        "qt": SimpleNamespace(QSettings=Settings, **dict.fromkeys(qt_names, Widget)),
        "ctk": SimpleNamespace(ctkCollapsibleButton=Widget, ctkSliderWidget=Widget),
        "vtk": SimpleNamespace(vtkMatrix4x4=Matrix),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name, stub in stubs.items():
            patch.setitem(sys.modules, name, stub)
        patch.delitem(sys.modules, "SASM", raising=False)
        import SASM

        yield SASM
        patch.delitem(sys.modules, "SASM", raising=False)
