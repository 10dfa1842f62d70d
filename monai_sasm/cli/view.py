"""``sasm view``: images before and after, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli.arguments import ModalityOption, Precision, Trust, check_choices
from monai_sasm.cli.output import one_line_errors, say, set_up_logging


def view(
    source: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="File or folder; more can be dropped on the page.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of what is saved.")] = Path("restored"),
    modality: ModalityOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser, only print the address.")] = False,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Let a notebook on this machine show the page in a cell.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 is two to five times faster on recent processors and GPUs.")
    ] = Precision.AUTO,
    gate: Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")] = None,
    trust: Trust = None,
) -> None:
    """Look at images before and after, in a browser on this machine, until Ctrl-C.

    Nothing leaves the machine: the server answers this machine only, and only who has the address that is printed.
    """
    set_up_logging(0)
    with one_line_errors():
        if source is not None and not source.exists():
            raise FileNotFoundError(f"{source} does not exist; check the path")
        from monai_sasm.optional import require

        for library in ("uvicorn", "starlette"):
            require(library, "sasm view", "pip install 'monai-sasm[view]'")
        from monai_sasm.restoration.targets import check_output
        from monai_sasm.view.serving import serve

        check_output(output, named=False)
        check_choices(device, gate, trust or ())

        serve(
            None if source is None else source.resolve(),
            output=output.resolve(),
            modality=modality,
            port=port,
            open_page=not no_open,
            framed=notebook,
            device=device,
            precision=precision.value,
            gate=gate,
            trust=trust or [],
            announce=say,
        )
