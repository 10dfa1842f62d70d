"""``sasm bundles``: which bundles there are, adding one, checking them."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from monai_sasm.cli.arguments import Overwrite
from monai_sasm.cli.output import (
    exit_code,
    logger,
    one_line_errors,
    print_row,
    print_table,
    say,
    say_lines,
    set_up_logging,
)
from monai_sasm.errors import reason_of

_COLUMNS = ("name", "role", "modality", "degradation", "weights", "called", "gain", "description")
_HEADS = {"called": "gate calls it", "gain": "gain, dB PSNR", "description": "what it is"}
CONFIGS = "configs"

bundles = typer.Typer(no_args_is_help=True, help="List, add, download or check bundles: experts, gate, refiners, ...")

Trust = Annotated[
    list[Path] | None,
    typer.Option(exists=True, file_okay=False, help="Another folder of bundles; bundles can run code."),
]


class Format(str, Enum):
    """What networks are exported as; those of :data:`monai_sasm.bundles.exporting.FORMATS`, which loads torch."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per bundle.")]


@bundles.command("list")
def show(trust: Trust = None, as_json: AsJson = False) -> None:
    """What each bundle is and repairs, whether its weights are there, whether the default gate calls it, and what was
    measured.

    As JSON also its version and place, and of each gate whether it is the default and which experts it calls.
    """
    set_up_logging(0)
    with one_line_errors():
        found = _available(trust)
        called = _called(found)
        rows = [_describe(name, folder) | {"called": name in called} for name, folder in found.items()]
        if as_json:
            for row in rows:
                print_row(row)
        else:
            head = tuple(_HEADS.get(key, key) for key in _COLUMNS)
            print_table(head, [tuple(_cell(row, key) for key in _COLUMNS) for row in rows])
        _tell_gate(found)


@bundles.command()
def path(
    name: Annotated[str, typer.Argument(help="A bundle's name, or `configs` for the overlays that go with bundles.")],
    config: Annotated[str, typer.Argument(help="A file of its configs folder, such as train.yaml.")] = "inference.yaml",
    trust: Trust = None,
) -> None:
    """Print where a bundle's configuration lies, for `python -m monai.bundle run --config_file`."""
    set_up_logging(0)
    with one_line_errors():
        found = _available(trust)
        if name not in found and name != CONFIGS:
            raise ValueError(f"no bundle named {name}; available: {', '.join(sorted(found)) or 'none'}")
        folder = _configs() if name == CONFIGS else found[name] / "configs"
        if not (file := folder / config).is_file():
            there = ", ".join(sorted(one.name for one in folder.glob("*.yaml")))
            raise ValueError(f"{name} has no {config}; it has {there}")
        say(file)


@bundles.command()
def new(
    name: Annotated[str, typer.Argument(help="The new bundle: letters, digits, '_' and '-'.")],
    origin: Annotated[str, typer.Option("--from", metavar="BUNDLE", help="A bundle's name, or its folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Where the new bundle's folder is made.")
    ] = Path(),
    trust: Trust = None,
) -> None:
    """Make a bundle of your own from another: a copy that runs its own weights, to be trained and described anew."""
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.bundles import new_bundle

        root = new_bundle(name, origin, output, extra=trust or ())
        say(root)
        say_lines(_next_steps(root, origin), sys.stderr)


@bundles.command()
def gate(
    name: Annotated[str | None, typer.Argument(help="Make this gate the default.")] = None,
) -> None:
    """Say which gate decides where none is named, and which experts it calls; or choose another one."""
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.bundles import choose_default_gate, find_gate

        found = _available(None)
        if name is not None:
            find_gate(found, name)
            choose_default_gate(name)
        say(find_gate(found) or "none")
        _tell_gate(found)


@bundles.command()
def add(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The expert bundle. It can run code.")],
    examples: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, help="Image pairs in clean/ and noisy/ with equal file names."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where bundles are kept; if left out, your own bundle folder.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Most steps of the fit.")] = 300,
    gate: Annotated[str | None, typer.Option(help="The gate to extend; the default one if left out.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle of that name that was added before.")
    ] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done.")] = 0,
) -> None:
    """Register an expert bundle, and extend the gate by it: its head is fitted anew, so that it knows when to call it.

    The gate itself stays as it is; the extended one lies beside the expert, and is the default from then on.
    """
    set_up_logging(verbose)
    with one_line_errors():
        from monai_sasm.bundles import DEFAULT_GATE, available, find_gate, read_metadata, user_folder
        from monai_sasm.training.gate_head import add_bundle

        extended = add_bundle(folder, examples, output, steps=steps, gate_name=gate, overwrite=overwrite)
        say(extended)
        origin = read_metadata(extended)["sasm"]["extends"]
        say(f"{extended.name} extends {origin} by {folder.resolve().name}", sys.stderr)
        if extended.parent == user_folder() and find_gate(available()) == extended.name:
            say(f"it is the default gate now; `sasm bundles gate {DEFAULT_GATE}` goes back", sys.stderr)
        else:
            place = "" if extended.parent == user_folder() else f" --trust {quote(str(extended.parent))}"
            say(f"use it by --gate {extended.name}{place}", sys.stderr)


@bundles.command()
def remove(
    name: Annotated[str, typer.Argument(help="A bundle that was added.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it is kept; if left out, your own bundle folder.")
    ] = None,
) -> None:
    """Delete a bundle that was added, and let the gates beside it forget it. What it was copied from stays."""
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.bundles import user_folder
        from monai_sasm.bundles.finding import beside
        from monai_sasm.training.gate_copy import remove_bundle

        for changed in remove_bundle(name, output):
            say(f"{changed} no longer calls {name}", sys.stderr)
        _tell_gate(_available(list(beside(output or user_folder()))))


@bundles.command()
def download(
    name: Annotated[str, typer.Argument(help="A bundle whose weights are kept elsewhere, such as upscale_photo_sd4x.")],
    trust: Trust = None,
) -> None:
    """Fetch the weights that a bundle takes from the Hugging Face hub into the hub's cache."""
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.bundles import load

        bundle = load(name, extra=trust or ())
        hub = bundle.metadata["sasm"].get("hub")
        if hub is None:
            raise ValueError(f"{name} needs no download; its weights are in models/model.pt")
        network: Any = bundle.network
        network.download = True
        bundle.prepare()
        say(hub)


@bundles.command()
def export(
    name: Annotated[str, typer.Argument(help="An expert that does not sample, a gate, or noise_estimator.")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="The new file.")],
    kind: Annotated[Format, typer.Option("--format", help="Of the new file.")] = Format.ONNX,
    overwrite: Overwrite = False,
    trust: Trust = None,
    as_json: Annotated[bool, typer.Option("--json", help="The metadata as JSON instead of the path.")] = False,
) -> None:
    """Write a network for other runtimes: (image, sigma) to image in working scale, compared with its bundle before.

    What the numbers mean stands in the file's metadata under "sasm": scale, multiple of the sides, classes of a gate.
    """
    set_up_logging(0)
    with one_line_errors():
        from monai_sasm.bundles import load
        from monai_sasm.bundles.exporting import NOISE, export, export_noise_estimator

        if name == NOISE:
            facts = export_noise_estimator(output, kind=kind.value, overwrite=overwrite)
        else:
            facts = export(load(name, extra=trust or ()), output, kind=kind.value, overwrite=overwrite)
        if as_json:
            print_row(facts)
        else:
            say(output)
        say(f"differs from the network by {facts['difference']:.1g} at most", sys.stderr)


@bundles.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Bundles; all if left out.")] = None,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done.")] = 0,
) -> None:
    """Read each bundle's metadata, build its network, load its weights, send an image through experts and refiners.

    What a missing extra or download keeps from running is skipped with the reason.
    """
    set_up_logging(verbose)
    with one_line_errors():
        found = _available(trust)
        unknown = sorted(set(names or ()) - set(found))
        if unknown:
            raise ValueError(f"no bundle named {', '.join(unknown)}; available: {', '.join(sorted(found)) or 'none'}")
        rows = [_check(name, found[name]) for name in names or found]
        if as_json:
            for row in rows:
                print_row(row)
        else:
            print_table(("name", "status", "reason"), [(r["name"], r["status"], r["reason"] or "") for r in rows])
        raise typer.Exit(exit_code(row["status"] for row in rows))


def _configs() -> Path:
    """Configurations beside the bundles: in the package where it is installed, else in the checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / CONFIGS, package.parent / CONFIGS) if folder.is_dir())


def _available(trust: list[Path] | None) -> dict[str, Path]:
    from monai_sasm.bundles import available

    return dict(sorted(available(trust or ()).items()))


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from monai_sasm.bundles import read_metadata
    from monai_sasm.errors import BundleError

    try:
        metadata = read_metadata(folder)
    except BundleError as error:
        logger.error("%s: %s", name, reason_of(error))
        metadata = {"sasm": {"role": "broken"}}
    section = metadata["sasm"]
    return {
        "name": name,
        "role": section["role"],
        "modality": section.get("modality"),
        "degradation": section.get("degradation"),
        "version": metadata.get("version"),
        "description": metadata.get("description"),
        "gain": metadata.get("eval_metrics") or None,
        "weights": _weights(folder, section),
        **_calls(name, folder, section),
        "path": str(folder),
    }


def _cell(row: dict[str, Any], key: str) -> str:
    if key == "called":
        return "yes" if row[key] else "-"
    if key == "gain" and isinstance(row[key], dict) and "psnr_gain_db" in row[key]:
        return f"{row[key]['psnr_gain_db']:+.2f} ({row[key].get('measured_on', '')})"
    return str(row[key] or "-") if key != "gain" else "-"


def _called(found: dict[str, Path]) -> set[str]:
    """The experts that the default gate calls."""
    from monai_sasm.bundles import find_gate
    from monai_sasm.errors import BundleError

    try:
        name = find_gate(found)
    except BundleError:  # told below the list
        return set()
    return set() if name is None else set(_calls(name, found[name], {"role": "gate"})["experts"])


def _calls(name: str, folder: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Of a gate: whether it is the default, and its experts."""
    from monai_sasm.bundles import default_gate, gate_classes

    if section["role"] != "gate":
        return {}
    try:
        experts = gate_classes(folder)[1:]
    except (OSError, ValueError):
        experts = []
    return {"default": name == default_gate(), "experts": experts}


def _tell_gate(found: dict[str, Path]) -> None:
    """Which gate is the default, and which experts it calls, on stderr."""
    from monai_sasm.bundles import find_gate
    from monai_sasm.errors import BundleError

    try:
        name = find_gate(found)
    except BundleError as error:
        logger.error("%s", reason_of(error))
        return
    if name is None:
        say("no gate is installed; experts act by their names alone", sys.stderr)
        return
    calls = _calls(name, found[name], {"role": "gate"})["experts"]
    told = [expert if expert in found else f"{expert} (not installed)" for expert in calls]
    say(f"default gate: {name}, calls {', '.join(told) or 'no expert'}", sys.stderr)


def _next_steps(root: Path, origin: str) -> str:
    """What to do with a new bundle, as commands to paste."""
    from monai_sasm.bundles import available, read_metadata

    section = read_metadata(root)["sasm"]
    name, place, role = root.name, quote(str(root)), section["role"]
    run = "python -m monai.bundle run --config_file"
    steps = {"run": f"{run} {quote(str(root / 'configs' / 'inference.yaml'))} --dataset_dir IN --output_dir OUT"}
    if role in ("expert", "gate"):
        steps["restore"] = f"sasm restore IN -o OUT --{role} {name} --trust {place}"
    train, weights = root / "configs" / "train.yaml", quote(str(root / "models" / "model.pt"))
    if train.is_file():
        quick = train.with_name("train_cpu.yaml")  # the other alone takes days without a GPU
        configs = f'"{[str(train), str(quick)]}"' if quick.is_file() else quote(str(train))
        steps["train"] = f"{run} {configs} --dataset_dir DATA"
        if "\ninitial_weights:" in train.read_text(encoding="utf-8"):
            steps["tune"] = f"{steps['train']} --initial_weights {weights}"
        steps["then"] = f"cp runs/{name}/model.pt {weights}, and rewrite docs/README.md"
    elif (trainer := section.get("trained_by")) and trainer["bundle"] in available():
        head = available()[trainer["bundle"]] / "configs"
        both = f'"{[str(head / name) for name in ("train.yaml", trainer["overlay"])]}"'
        steps["train"] = f"{run} {both} --dataset_dir DATA --output_dir runs/{name}"
        steps["then"] = f"cp runs/{name}/model.pt {weights}, and rewrite docs/README.md"
    steps["check"] = f"sasm bundles check {name} --trust {place}"
    if role == "expert":
        steps["compare"] = f"sasm evaluate --bundle {quote(origin)} --bundle {place} --trust {place} --data IMAGES"
        steps["add"] = f"sasm bundles add {place} --examples PAIRS"
    lines = [f"{name} is a copy of {origin}, weights included. Next:"]
    return "\n".join([*lines, *(f"  {what + ':':9}{how}" for what, how in steps.items())])


def _weights(folder: Path, section: dict[str, Any]) -> str:
    if "hub" in section:
        from monai_sasm.bundles.finding import is_downloaded

        return "downloaded" if is_downloaded(section["hub"], section.get("revision")) else "not downloaded"
    return "yes" if (folder / "models" / "model.pt").is_file() else "not needed" if _owns_none(section) else "missing"


def _owns_none(section: dict[str, Any]) -> bool:
    return section["role"] == "pipeline"  # its weights are those of the other bundles


def _check(name: str, folder: Path) -> dict[str, Any]:
    from monai_sasm.bundles.checking import check_runs
    from monai_sasm.optional import MissingExtraError
    from monai_sasm.refine.upscale import NotDownloadedError

    try:
        check_runs(folder)
    except (MissingExtraError, NotDownloadedError) as error:
        return {"name": name, "status": "skipped", "reason": reason_of(error)}
    except Exception as error:  # a foreign config may fail in any way; the others are still checked
        logger.debug("traceback", exc_info=True)
        return {"name": name, "status": "failed", "reason": reason_of(error)}
    return {"name": name, "status": "ok", "reason": None}
