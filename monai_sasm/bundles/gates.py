"""Which gate decides, and which experts it may call.

The default is named in one place: :data:`DEFAULT_GATE`, unless the file ``default_gate.txt`` in the user's bundle
folder names another, as ``sasm bundles add`` and ``sasm bundles gate NAME`` write it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_sasm.bundles.finding import available, user_folder
from monai_sasm.bundles.metadata import read_metadata, readable_sections
from monai_sasm.errors import BundleError
from monai_sasm.types import Modality

DEFAULT_GATE = "gate_mobilenet"
CHOICE_FILE = "default_gate.txt"


def default_gate() -> str:
    """Name of the gate that decides where none is named."""
    chosen = user_folder() / CHOICE_FILE
    return chosen.read_text(encoding="utf-8").strip() if chosen.is_file() else DEFAULT_GATE


def choose_default_gate(name: str, folder: Path | None = None) -> None:
    """Make a gate the default, by a file in a bundle folder.

    Args:
        name: of the gate; :data:`DEFAULT_GATE` goes back to the shipped one.
        folder: the user's bundle folder if left out. The choice counts where that is the user's bundle folder.
    """
    chosen = (folder or user_folder()) / CHOICE_FILE
    if name == DEFAULT_GATE:
        chosen.unlink(missing_ok=True)
        return
    chosen.parent.mkdir(parents=True, exist_ok=True)
    chosen.write_text(name + "\n", encoding="utf-8")


def find_gate(found: Mapping[str, Path], name: str | None = None) -> str | None:
    """Name of the gate to use.

    Args:
        found: name -> folder, see :func:`monai_sasm.bundles.available`.
        name: a certain gate; by default that of :func:`default_gate`.

    Returns:
        The name; ``None`` where none is asked for and the shipped default is not installed.

    Raises:
        BundleError: the gate that is asked for, or that the user made the default, is not there or is no gate.
    """
    wanted = name or default_gate()
    if wanted not in found:
        if wanted == DEFAULT_GATE and name is None:
            return None
        gates = [one for one, section in readable_sections(found).items() if section["role"] == "gate"]
        raise no_gate(wanted, gates)
    role = read_metadata(found[wanted])["sasm"]["role"]
    if role != "gate":
        raise BundleError(f"{wanted} has role {role!r}; only a bundle with role 'gate' chooses experts")
    return wanted


def no_gate(name: str, gates: Iterable[str]) -> BundleError:
    """What to raise where the gate ``name`` is not among the installed ``gates``."""
    chosen = user_folder() / CHOICE_FILE
    why = f", which {chosen} makes the default" if chosen.is_file() and name == default_gate() else ""
    installed = ", ".join(sorted(gates)) or "none"
    return BundleError(f"no gate named {name!r}{why}; available: {installed}; choose another, or name an expert")


def gate_classes(root: str | Path) -> list[str]:
    """Class names of a gate or classifier, from its ``configs/classes.json``; a gate's first is the identity.

    Raises:
        BundleError: the file is missing, or holds no list of names.
    """
    path = Path(root) / "configs" / "classes.json"
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise BundleError(f"{path} must hold a list of names")
    return classes


def classes_for(classes: Sequence[str], modality: str, extra: Sequence[Path] = ()) -> list[bool]:
    """Which gate classes may act on images of a modality: the identity, and the experts made for it.

    Args:
        classes: see :func:`gate_classes`.
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
        extra: further folders to look the experts up in, see :func:`monai_sasm.bundles.available`.
    """
    found = available(extra)
    sections = readable_sections({name: found[name] for name in classes if name in found})
    owners = [sections.get(name, {}).get("modality") for name in classes]
    return [index == 0 or owner == Modality(modality).value for index, owner in enumerate(owners)]
