"""``sasm label-server``, ``label-app`` and ``slicer-module``: what MONAI Label and 3D Slicer are started with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli.arguments import Trust, check_choices
from monai_sasm.cli.output import one_line_errors, say, set_up_logging

# MONAI Label looks for a main.py, puts its logs and models beside it, and so needs a folder outside of this package
_MAIN = '"""Loaded by `monailabel start_server --app` of this folder."""\n\nfrom monai_sasm.label.app import SasmApp\n'
_OWN = ("main.py", "token", "logs", "model", "lib", "bin")


def label_environment(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Folder of the environment.")] = Path(".venv-label"),
) -> None:
    """Make the environment in which MONAI Label runs our app, by bash; its libraries and ours exclude one another.

    PYTHON=python3.12 takes another Python, PIP_FLAGS="--index-url ..." says where torch comes from.
    """
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm import __version__

        script = Path(__file__).parents[1] / "label" / "environment.sh"
        settings = {**os.environ, "SASM_VERSION": __version__}
        ended = subprocess.run(["bash", str(script), str(folder.resolve())], env=settings, check=False)
        if ended.returncode:
            raise typer.Exit(ended.returncode)
        say(folder / "bin" / "sasm")


def label_app(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Folder of the app, made if missing.")],
) -> None:
    """Make the folder that MONAI Label is started with.

    Then, in MONAI Label's own environment: `monailabel start_server --app FOLDER --studies IMAGES`. Clients must send
    the token in FOLDER/token.
    """
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.label.guard import token_in

        made = _app_in(folder)
        token_in(made)
        say(made)


def label_server(
    studies: Annotated[str, typer.Argument(help="Folder of images, or the address of a DICOMweb server.")],
    app: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the app, for token and logs; by default in your home folder."),
    ] = None,
    host: Annotated[str, typer.Option(help="Whom to answer: 0.0.0.0 is every machine that reaches this one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    trust: Trust = None,
    gate: Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Answer to this name, too, for example ws1.example.org.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Pages of this origin may ask, with the token.")
    ] = None,
) -> None:
    """Start MONAI Label with this app, for 3D Slicer and REST clients, until Ctrl-C.

    In MONAI Label's own environment, which sasm label-environment makes. Prints the address with the token that
    clients must send; the token stays the same as long as the folder of the app is kept.
    """
    set_up_logging(0)
    with one_line_errors():
        if find_spec("monailabel") is None:
            raise ImportError("MONAI Label is not in this environment; sasm label-environment makes one")
        from monai_sasm.label.guard import token_in

        check_choices(device, gate, trust or ())
        folder = _app_in(app or _default_app())
        images = studies if studies.startswith(("http://", "https://")) else str(Path(studies).resolve())
        # -P, and not in the folder that the user stands in: modules and settings (.env) in it would be loaded
        start = [sys.executable, "-P", "-m", "monailabel.main", "start_server", "--app", str(folder)]
        start += ["--studies", images, "--host", host, "--port", str(port), "--conf", "device", device]
        if trust:
            start += ["--conf", "trust", os.pathsep.join(str(path.resolve()) for path in trust)]
        if gate:
            start += ["--conf", "gate", gate]
        for name, values in (("hosts", allow_host), ("origins", allow_origin)):
            start += ["--conf", name, ",".join(values)] if values else []
        shown = f"[{host}]" if ":" in host else host
        say(f"sasm: address for clients: http://{shown}:{port}/?token={token_in(folder)}", sys.stderr)
        os.chdir(folder)
        os.execv(sys.executable, start)


def slicer_module() -> None:
    """Print the folder to add in 3D Slicer.

    There: Edit > Application Settings > Modules > Additional module paths.
    """
    say(Path(__file__).parents[1] / "slicer" / "SASM")


def _default_app() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sasm" / "label-app"


def _app_in(folder: Path) -> Path:
    """The folder with our ``main.py`` and nothing that MONAI Label would load besides, readable for its owner only."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    main = folder / "main.py"
    if main.is_file() and main.read_text(encoding="utf-8") != _MAIN:
        raise FileExistsError(f"{main} is another app; choose another folder")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # Python would rather load what is in there
    strange = sorted(path.name for path in folder.iterdir() if path.name not in _OWN)
    strange += [name for name in ("lib", "bin") if (folder / name).is_dir() and any((folder / name).iterdir())]
    if strange:
        raise FileExistsError(
            f"{folder} holds {', '.join(strange[:5])}, and MONAI Label would load code from there; "
            "choose another folder"
        )
    if os.name != "nt" and folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"another user owns {folder}; choose another folder")
    main.write_text(_MAIN, encoding="utf-8")
    return folder
