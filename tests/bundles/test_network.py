"""A network built without MONAI's parser is the one that its parser builds; other configurations are left to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_sasm.bundles import inference_parser, read_metadata
from monai_sasm.bundles.network import plain_network
from tests.data import CHECKOUT

BUNDLES = sorted(path.parents[1] for path in (CHECKOUT / "bundles").glob("*/configs/inference.yaml"))
CALLED_BY_THE_GATE = ("gate_mobilenet", "lowdose_ct_unet", "noise_mri_unet", "noise_photo_unet", "raindrop_photo_unet")


@pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)
def test_it_is_the_network_of_monais_parser(root: Path) -> None:
    role = read_metadata(root)["sasm"]["role"]
    network = plain_network(root / "configs" / "inference.yaml", root) if role in ("expert", "gate") else None
    assert (network is not None) >= (root.name in CALLED_BY_THE_GATE)
    if network is None:
        return
    expected = inference_parser(root).get_parsed_content("network_def")
    assert str(network) == str(expected)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }


@pytest.mark.parametrize(
    "definition",
    [
        "{_target_: monai.networks.nets.UNet}",
        "$torch.nn.Identity()",
        "{_target_: torch.nn.Conv2d, kernel_size: '@a::b'}",
        "{_target_: torch.nn.Identity, _disabled_: true}",
        "{_target_: no_such_library.Network}",
    ],
)
def test_what_needs_monai_is_left_to_it(definition: str, tmp_path: Path) -> None:
    (tmp_path / "inference.yaml").write_text(f"network_def: {definition}\na: {{b: 3}}\n")
    assert plain_network(tmp_path / "inference.yaml", tmp_path) is None


def test_references_are_resolved_once(tmp_path: Path) -> None:
    config = tmp_path / "inference.yaml"
    pair = "{_target_: torch.nn.ModuleList, modules: ['@shared', '@shared']}"
    config.write_text("shared: {_target_: torch.nn.Identity}" + f"\nnetwork_def: {pair}")
    network = plain_network(config, tmp_path)
    assert isinstance(network, torch.nn.ModuleList)
    assert network[0] is network[1]


def test_restoring_a_photo_does_not_import_monai() -> None:
    code = (
        "import sys, numpy as np, monai_sasm as sasm\n"
        "photo = sasm.Volume.from_array(np.full((3, 16, 16), 0.5, np.float32), modality='PHOTO')\n"
        "assert np.isfinite(sasm.Restorer('cpu')(photo).volume.array).all()\n"
        "print([name for name in ('monai', 'ignite', 'matplotlib', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "[]"
