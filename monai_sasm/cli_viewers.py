"""``sasm label-app`` and ``sasm slicer-module``: what MONAI Label and 3D Slicer are started with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli_report import one_line_errors, set_up_logging

# MONAI Label looks for a main.py, puts its logs and models beside it, and so needs a folder outside of this package
_MAIN = '"""Loaded by `monailabel start_server --app` of this folder."""\n\nfrom monai_sasm.label.app import SasmApp\n'


def label_app(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Folder of the app, made if missing.")],
) -> None:
    """Make the folder that MONAI Label is started with.

    Then, in MONAI Label's own environment: `monailabel start_server --app FOLDER --studies IMAGES`.
    """
    set_up_logging(0)
    with one_line_errors():
        main = folder / "main.py"
        if main.is_file() and main.read_text(encoding="utf-8") != _MAIN:
            raise FileExistsError(f"{main} is another app; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        main.write_text(_MAIN, encoding="utf-8")
        print(folder)


def slicer_module() -> None:
    """Print the folder to add in 3D Slicer.

    There: Edit > Application Settings > Modules > Additional module paths.
    """
    print(Path(__file__).parent / "slicer" / "SASM")
