"""``sasm label-server``, ``label-app`` and ``slicer-module``: what MONAI Label and 3D Slicer are started with."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli.output import one_line_errors, set_up_logging

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
        print(_app_in(folder))


def label_server(
    studies: Annotated[str, typer.Argument(help="Folder of images, or the address of a DICOMweb server.")],
    app: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of the app, made if missing; the logs go there.")
    ] = Path("sasm-label-app"),
    host: Annotated[str, typer.Option(help="Whom to answer: 0.0.0.0 is every machine that reaches this one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    trust: Annotated[
        list[Path] | None, typer.Option(help="Further folder of bundles; their configs may run code.")
    ] = None,
) -> None:
    """Start MONAI Label with this app, for 3D Slicer and REST clients, until Ctrl-C.

    In MONAI Label's own environment, which scripts/label_environment.sh makes. It asks nobody for a password.
    """
    set_up_logging(0)
    with one_line_errors():
        if find_spec("monailabel") is None:
            raise ImportError("MONAI Label is not in this environment; scripts/label_environment.sh makes one")
        start = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(_app_in(app))]
        start += ["--studies", studies, "--host", host, "--port", str(port), "--conf", "device", device]
        if trust:
            start += ["--conf", "trust", os.pathsep.join(str(folder.resolve()) for folder in trust)]
        os.execv(sys.executable, start)


def slicer_module() -> None:
    """Print the folder to add in 3D Slicer.

    There: Edit > Application Settings > Modules > Additional module paths.
    """
    print(Path(__file__).parent / "slicer" / "SASM")


def _app_in(folder: Path) -> Path:
    main = folder / "main.py"
    if main.is_file() and main.read_text(encoding="utf-8") != _MAIN:
        raise FileExistsError(f"{main} is another app; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    main.write_text(_MAIN, encoding="utf-8")
    return folder
