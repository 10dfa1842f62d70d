"""``sasm node``, ``sasm pull`` and ``sasm push``: a place in the DICOM network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_sasm.cli.arguments import Precision
from monai_sasm.cli.output import (
    ALL_FAILED,
    exit_code,
    logger,
    one_line_errors,
    print_row,
    reason_of,
    say,
    set_up_logging,
)

if TYPE_CHECKING:
    from monai_sasm.node.config import Peer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", exists=True, dir_okay=False, help="YAML file of settings; options override it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per series on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done; -vv with tracebacks.")]
Server = Annotated[str, typer.Argument(metavar="SERVER", help="http(s)://... of DICOMweb, or a destination's name.")]


def node(
    config: Config = None,
    spool: Annotated[Path | None, typer.Option(help="Folder of what is in flight; holds patient data.")] = None,
    allow: Annotated[list[str] | None, typer.Option(metavar="AE[@ADDRESS]", help="Who may send; '*' is all.")] = None,
    to: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=PEER]", help="Where results go: pacs=AE@HOST:PORT or web=URL.")
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="The node's own AE title; SASM if left out.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if left out.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="DICOM port; 11112 if left out.")] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Address of /healthz and /metrics; 127.0.0.1 if left out.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /healthz and /metrics; 11180 if left out.")
    ] = None,
    quiet_seconds: Annotated[
        float | None, typer.Option(min=0, help="A series is complete so long after its last object; 10 if left out.")
    ] = None,
    expert: Annotated[
        str | None, typer.Option(help="Use only this expert, without the gate; see `sasm bundles list`.")
    ] = None,
    gate: Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 returns the input, 1 the full restoration; 1 if left out.")
    ] = None,
    target_noise: Annotated[
        float | None, typer.Option(metavar="HU|PERCENT", help="Noise that shall remain; see `sasm restore --help`.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto if left out.")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="bfloat16 is faster on recent processors and GPUs; auto if left out.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Another folder of bundles; bundles can run code."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With tracebacks and warnings, which may quote patient data.")
    ] = False,
) -> None:
    """Receive CT and MR series by C-STORE, restore them, and send the derived series to a PACS.

    Runs until it is interrupted. What is in flight lies in the spool and survives: each object is sent at least once,
    and again with the same UID where it was not clear whether it had arrived.
    """
    os.umask(0o077)
    set_up_logging(-1 if quiet else 2 if verbose else 1)
    with one_line_errors():
        from monai_sasm.batch.settings import read_settings
        from monai_sasm.node.config import config_from
        from monai_sasm.node.fields import as_mapping

        settings = read_settings(config) if config else {}
        given = {
            "spool": spool, "allow": allow, "ae_title": ae_title, "host": host, "port": port,
            "http_host": http_host, "http_port": http_port, "quiet_seconds": quiet_seconds,
        }  # fmt: skip
        settings |= {key: value for key, value in given.items() if value is not None}
        options = {
            "expert": expert, "gate": gate, "strength": strength, "target_noise": target_noise,
            "device": device, "precision": precision and precision.value, "trust": trust,
        }  # fmt: skip
        chosen = {key: value for key, value in options.items() if value is not None}
        settings["restore"] = as_mapping("restore", settings.get("restore")) | chosen
        if to:
            named = dict(entry.partition("=")[::2] for entry in to)
            given_here = {name: peer for name, peer in named.items() if peer}
            settings["destinations"] = as_mapping("destinations", settings.get("destinations")) | given_here
            settings["send_to"] = list(named)
        checked = config_from(settings)

        from monai_sasm.node.restorer import SeriesRestorer
        from monai_sasm.node.service import Node

        restorer = SeriesRestorer(checked.restore, checked.keep_private)
        service = Node(checked, restorer, report=print_row if as_json else lambda row: None)
        places = ", ".join(peer.name for peer in checked.destinations)
        logger.info("%s listens on %s:%d and sends to %s", checked.ae_title, checked.host, service.port, places)
        if service.http_port is not None:
            logger.info("http://%s:%d/healthz", checked.http_host, service.http_port)
        service.run()


def pull(
    server: Server,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; each series gets a folder in it.")],
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    series: Annotated[str | None, typer.Option(help="Series Instance UID.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient ID.")] = None,
    accession: Annotated[str | None, typer.Option(help="Accession Number.")] = None,
    modality: Annotated[str | None, typer.Option(help="CT or MR.")] = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is there; fetch nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Fetch series from a DICOMweb server (QIDO-RS, WADO-RS), for `sasm restore`; only you can read what is written.

    Exit codes: 0 done, 2 wrong use, 3 nothing found, 4 all failed, 8 some failed.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        from monai_sasm.node.dicomweb import fetch_series, find_series
        from monai_sasm.node.web import Web
        from monai_sasm.restoration.targets import check_output

        keys = {
            "StudyInstanceUID": study, "SeriesInstanceUID": series, "PatientID": patient, "AccessionNumber": accession,
        }  # fmt: skip
        filters = {key: value for key, value in keys.items() if value}
        if not filters:
            raise ValueError("say what to fetch: --study, --series, --patient or --accession")
        filters |= {"Modality": modality.upper()} if modality else {}
        check_output(output, named=False)
        web = Web(_web_peer(server, config))
        try:
            found = find_series(web, filters)
        except OSError as error:  # of the server: the command may be right
            logger.debug("traceback", exc_info=True)
            logger.error("%s", reason_of(error))
            raise typer.Exit(ALL_FAILED) from None
        statuses = []
        for one in found:
            row: dict[str, Any] = {"study": one.study, "series": one.series, "modality": one.modality}
            row |= {"instances": one.instances, "status": "planned", "path": None, "reason": None}
            if not dry_run:
                try:
                    row |= {"path": str(fetch_series(web, one, output, filters)), "status": "ok"}
                except FileExistsError as error:
                    row |= {"status": "skipped", "reason": reason_of(error)}
                except (ValueError, OSError) as error:
                    row |= {"status": "failed", "reason": reason_of(error)}
            _tell(row, row["path"] or (one.series if dry_run else None), as_json)
            statuses.append(row["status"])
        if not found:
            logger.warning("no series matches")
        raise typer.Exit(exit_code(statuses))


def push(
    server: Annotated[
        str, typer.Argument(metavar="PEER", help="http(s)://..., AE@HOST:PORT, or a destination's name.")
    ],
    source: Annotated[list[Path], typer.Argument(exists=True, metavar="PATH...", help="DICOM files or folders.")],
    config: Config = None,
    ae_title: Annotated[str, typer.Option(help="Own AE title for C-STORE.")] = "SASM",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Store DICOM files on a server: STOW-RS, or C-STORE where the server is AE@HOST:PORT.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        from monai_sasm.node.deliver import UnreachableError, deliver
        from monai_sasm.node.dicomweb import dicom_files

        peer = _peer(server, config)
        statuses = []
        for path in source:
            files, taken = list[Path](), list[str]()
            row: dict[str, Any] = {"path": str(path), "status": "ok", "reason": None}
            try:
                files += dicom_files(path)
                deliver(peer, files, ae_title, taken.extend)
            except (UnreachableError, ValueError) as error:
                row |= {"status": "failed", "reason": reason_of(error)}
                statuses += ["ok"] if taken else []  # some of it has arrived
            if not files and row["status"] == "ok":
                row |= {"status": "skipped", "reason": f"{path} holds no DICOM files"}
            statuses.append(row["status"])
            row |= {"files": len(files), "taken": len(taken)}
            _tell(row, str(path) if row["status"] == "ok" else None, as_json)
        raise typer.Exit(exit_code(statuses))


def _tell(row: dict[str, Any], line: str | None, as_json: bool) -> None:
    if row["status"] in ("failed", "skipped"):
        logger.log(40 if row["status"] == "failed" else 30, "%s", row["reason"])
    if as_json:
        print_row(row)
    elif line:
        say(line)


def _peer(server: str, config: Path | None) -> Peer:
    from monai_sasm.batch.settings import read_settings
    from monai_sasm.node.config import peer_from, peers_from

    known = peers_from(read_settings(config)) if config else {}
    return known[server] if server in known else peer_from("server", server)


def _web_peer(server: str, config: Path | None) -> Any:
    from monai_sasm.node.config import WebPeer

    peer = _peer(server, config)
    if not isinstance(peer, WebPeer):
        raise ValueError(f"series are fetched by DICOMweb, from http(s)://..., got {server!r}")
    return peer
