"""Measure by protocol: the function behind ``sasm evaluate``."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.evaluation.context import LIMITED, Context
from monai_sasm.evaluation.data import DataAbsentError, data_root
from monai_sasm.evaluation.report import PROTOCOLS, installed_versions, report
from monai_sasm.evaluation.table import Table

if TYPE_CHECKING:
    from monai_sasm.protocols.brats import Engine

NOTHING = "(?!)"  # a pattern
WAY = "name the folder of the data sets with data='FOLDER' or the environment variable SASM_DATA"
WITHOUT_DEFAULT = {
    "superres-photo": "it makes photos larger, and the default pipeline keeps their size",
    "inpaint": "it is told where the holes are, and the default pipeline takes no mask",
    "cifar10": "it classifies images of 32 x 32 pixels",
    "brats": "it compares super-resolution experts, which the gate does not call; see mri-superres",
    "gate": "its rows are groups of images, and all are of the gate of the default pipeline",
}
"""Protocol -> why it has no row of the default pipeline; every other one has it."""


def evaluate(
    protocol: str,
    data: Path | None = None,
    output: Path = Path("docs/results"),
    device: str = "auto",
    limit: int | None = None,
    peers: bool = True,
    weights: Mapping[str, Path] | None = None,
) -> Table:
    """Run one protocol; writes ``<output>/<protocol>.{json,md,png}``, ``<output>/peers.json`` and
    ``<output>/../RESULTS.md``.

    Args:
        protocol: a key of :data:`PROTOCOLS`.
        data: data root; else the environment variable SASM_DATA, else ``../shared/data`` beside the checkout.
        output: folder of the results.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        limit: only the first so many images (flagged: not the protocol's number); written to ``<output>/limited``, so
            that the results of whole runs stay.
        peers: also run the methods of others; ``False`` for a quick look.
        weights: further checkpoints by label, as ``{"pair0": path}`` for ``raindrop-real``, see
            :func:`share_weights`.

    Returns:
        The table; ``table.skipped`` is the reason when the data are absent, and then nothing is written.

    Raises:
        ValueError: unknown protocol, or weights that it does not compare.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    context = Context(
        data_root(data), Path(output), device=device, limit=limit, peers=peers, weights=dict(weights or {})
    )
    return evaluate_in(context, protocol)


def share_weights(protocols: Sequence[str], weights: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Protocol -> those of the further weights that it compares.

    Args:
        protocols: those that are to be run.
        weights: ``LABEL`` or ``EXPERT/LABEL`` -> file; where a protocol compares several experts, only the latter.

    Raises:
        ValueError: weights that none of the protocols compares.
    """
    shared = {
        name: {key: path for key, path in weights.items() if re.fullmatch(_labels(name, protocols), key)}
        for name in (protocols if weights else ())
    }
    unused = [key for key in weights if not any(key in found for found in shared.values())]
    if unused:
        ways = "; ".join(f"{name}: {_way(name)}" for name in protocols)
        raise ValueError(f"nothing compares the weights {', '.join(unused)} ({ways})")
    return {name: shared.get(name, {}) for name in protocols}


def _labels(protocol: str, beside: Sequence[str]) -> str:
    """A pattern of the labels of weights that a protocol compares, run beside others that have labels of their own."""
    module = _module(protocol)
    experts: Sequence[str] = getattr(module, "WEIGHTS", ())
    taken = "|".join(getattr(_module(name), "LABELS", NOTHING) for name in beside)
    free = [f"(?!(?:{taken})$)[^/]+"] if len(experts) == 1 else []
    return "|".join([*(f"{re.escape(one)}/[^/]+" for one in experts), *free, getattr(module, "LABELS", NOTHING)])


def _way(protocol: str) -> str:
    module = _module(protocol)
    experts: Sequence[str] = getattr(module, "WEIGHTS", ())
    if len(experts) == 1:
        return f"LABEL=FILE, of {experts[0]}"
    return " or ".join([f"{one}/LABEL=FILE" for one in experts] or [getattr(module, "LABELS", "no further weights")])


def compare(
    bundles: Sequence[str],
    data: Path,
    output: Path = Path("comparison"),
    device: str = "auto",
    limit: int | None = None,
    trust: Sequence[Path] = (),
) -> Table:
    """Set any experts side by side on a folder of one's own; writes ``<output>/compare.{json,md,csv}`` and figures.

    Args:
        bundles: names or folders of experts of one modality, see
            :func:`monai_sasm.evaluation.named_experts.find_experts`; the others are tested against the first.
        data: images, paired or clean, see :mod:`monai_sasm.evaluation.own_folder`.
        output: folder of the results.
        device: as for :func:`evaluate`.
        limit: only the first so many images (flagged).
        trust: further folders of bundles, whose configuration may run code.

    Raises:
        BundleError: an expert is missing, or clean images only and no degradation is known for it.
        DataAbsentError: nothing in the folder can be measured.
    """
    from monai_sasm.evaluation import comparison
    from monai_sasm.evaluation.named_experts import find_experts

    experts = find_experts(bundles, trust)
    table = comparison.run(Context(Path(data), Path(output), device=device, limit=limit), experts)
    table.write(Path(output))
    return table


def evaluate_brats(
    root: Path,
    bundles: Sequence[str] = (),
    output: Path = Path("docs/results"),
    device: str = "auto",
    limit: int | None = None,
    trust: Sequence[Path] = (),
    resume: bool = False,
    engine: Engine | None = None,
) -> Table:
    """Protocol ``brats`` on a folder of one's own, resumed and spread as asked for; writes what :func:`evaluate` does,
    and the manifest of subjects to ``<output>/brats`` whatever the limit.

    Arguments and errors as for :func:`monai_sasm.protocols.brats.measure`.
    """
    from monai_sasm.protocols.brats import measure

    context = Context(Path(root), Path(output), device=device, limit=limit).aside()
    table = measure(context, Path(root), bundles, trust=trust, resume=resume, engine=engine)
    return _written(_explained(table), context.output)


def evaluate_in(context: Context, protocol: str) -> Table:
    """As :func:`evaluate`, with the context built by the caller. A protocol that is skipped writes nothing at all."""
    share_weights([protocol], context.weights)
    context = context.aside()
    try:
        table: Table = _module(protocol).run(context)
    except DataAbsentError as error:
        absent = error if context.data.is_dir() else DataAbsentError(f"no folder {context.data}")
        table = Table(protocol, skipped=f"{absent}; {WAY}")
    given = context.bundles
    versions = installed_versions() if given is None else {one.name: one.version for one in given.values()}
    return _written(replace(_explained(table), versions=versions), context.output)


def _module(protocol: str) -> Any:
    return importlib.import_module(f"monai_sasm.protocols.{protocol.replace('-', '_')}")


def _explained(table: Table) -> Table:
    """With the reason why there is no row of the default pipeline, where there is none."""
    if table.skipped is not None or table.protocol not in WITHOUT_DEFAULT:
        return table
    return replace(table, flags=(*table.flags, f"no row of the default pipeline: {WITHOUT_DEFAULT[table.protocol]}"))


def _written(table: Table, output: Path) -> Table:
    """Write a table and the page of all tables; where nothing was measured, earlier results stay as they are."""
    if table.skipped is None:
        table.write(output)
        if output.name != LIMITED:
            report(output)
    elif (output / f"{table.protocol}.json").exists():
        return replace(table, skipped=f"{table.skipped}; the results of an earlier run are kept")
    return table
