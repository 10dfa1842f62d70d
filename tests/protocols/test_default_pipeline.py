"""Every protocol has a row of what users run, the default pipeline, or says why not."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.report import PROTOCOLS
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols import evaluate
from monai_sasm.protocols.evaluate import WITHOUT_DEFAULT, evaluate_in, share_weights
from monai_sasm.refine.flow import FlowRefiner
from monai_sasm.types import Modality
from tests.evaluation.networks import bundle

OWN_FILE = (
    "photo-ddpm",
    "ct-lesions",
    "mri-superres",
    "mri-heads",
    "mri-repeat",
    "speed",
)  # whose tests assert the same row
TRUST = ("ct-phantom", "mri-lesions", "no-harm", "coherence")  # as test_trust.py does
HERE = [name for name in PROTOCOLS if name not in (*WITHOUT_DEFAULT, *OWN_FILE, *TRUST)]


class Nothing(nn.Module):
    """A refiner's network that finds nothing missing."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_: object) -> torch.Tensor:
        return self.zero * x[:, :3]


@pytest.mark.parametrize("protocol", HERE)
def test_the_default_pipeline_is_a_row(protocol: str, context: Context) -> None:
    """On noisy images it stands between the input and the expert: the gate here gives the expert half of the weight."""
    refiner = bundle("refine_photo_flow", FlowRefiner(Nothing(), steps=1), "refiner", Modality.PHOTO)
    table = evaluate_in(replace(context, bundles={**(context.bundles or {}), refiner.name: refiner}), protocol)
    assert table.skipped is None
    row = table.row(DEFAULT)
    assert set(row.scores) >= {level for level in table.rows[0].scores if level in row.scores}
    experts = [one for one in table.rows if one.method.startswith("expert ")]
    assert experts or protocol == "refine"
    for level, scores in row.scores.items():
        assert scores["PSNR" if "PSNR" in scores else "PSNR RGB"] > 5
        assert all(scores != expert.scores[level] for expert in experts if level in expert.scores)


@pytest.mark.parametrize("protocol", WITHOUT_DEFAULT)
def test_a_protocol_without_it_says_why(protocol: str, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        @staticmethod
        def run(_: Context) -> Table:
            return Table(protocol)

    monkeypatch.setattr(evaluate.importlib, "import_module", lambda _: Module)
    assert evaluate_in(context, protocol).flags == (f"no row of the default pipeline: {WITHOUT_DEFAULT[protocol]}",)
    assert set(WITHOUT_DEFAULT) < set(PROTOCOLS)


def test_a_quick_look_leaves_the_numbers_of_whole_runs(context: Context) -> None:
    whole = evaluate_in(context, "mri-noise")
    page = (context.output.parent / "RESULTS.md").read_text(encoding="utf-8")
    limited = evaluate_in(replace(context, limit=1), "mri-noise")
    assert limited.row("input").n != whole.row("input").n
    assert Table.read(context.output / "mri-noise.json").row("input") == whole.row("input")
    assert (context.output.parent / "RESULTS.md").read_text(encoding="utf-8") == page
    assert Table.read(context.output / "limited" / "mri-noise.json").row("input") == limited.row("input")
    assert limited.flags[0].startswith("limited to the first 1 images")


def test_weights_go_to_the_protocols_that_compare_them() -> None:
    file = Path("w.pt")
    wanted = ["ct-lesions", "mri-lesions", "raindrop-real", "photo-awgn"]
    given = {"lowdose_ct_unet/old": file, "noise_mri_unet/old": file, "pair183": file, "new": file}
    assert {name: list(found) for name, found in share_weights(wanted, given).items()} == {
        "ct-lesions": ["lowdose_ct_unet/old", "new"],
        "mri-lesions": ["noise_mri_unet/old"],
        "raindrop-real": ["pair183"],
        "photo-awgn": [],
    }
    with pytest.raises(ValueError, match=r"weights 0.1 \(photo-awgn: no further weights; mri-lesions: noise_mri_unet/"):
        share_weights(["photo-awgn", "mri-lesions"], {"0.1": file})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_that_reads_weights_says_whose(protocol: str) -> None:
    module = importlib.import_module(f"monai_sasm.protocols.{protocol.replace('-', '_')}")
    source = inspect.getsource(module)
    reads = any(name in source for name in ("retrained(", "weights_of(", "context.weights")) or (
        "raindrops import" in source and "methods(context)" in source
    )
    assert reads == (hasattr(module, "WEIGHTS") or hasattr(module, "LABELS"))


def test_weights_of_a_pair_that_is_not_there_are_refused(context: Context, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pair7 in .*; pairs: pair0, pair1"):
        evaluate_in(replace(context, weights={"pair7": tmp_path / "w.pt"}), "raindrop-real")
