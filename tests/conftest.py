"""Fixtures that several files share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

LOGGERS = {
    name: (list(log.handlers), log.propagate, log.level)
    for name in ("monai_sasm", "py.warnings", "pydicom")
    for log in [logging.getLogger(name)]
}


@pytest.fixture(autouse=True)
def loggers_as_found() -> None:
    """The command line sets up logging for its process; no test must inherit that, nor a fixture of a whole file."""
    for name, (handlers, propagate, level) in LOGGERS.items():
        log = logging.getLogger(name)
        log.handlers, log.propagate = list(handlers), propagate
        log.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def toy_restorer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A house whose experts ``toy_ct``, ``toy_mr`` and ``toy_photo`` halve the image; its gate trusts all alike."""
    import torch

    from monai_sasm.bundles import DEFAULT_GATE, Bundle
    from monai_sasm.restoration.installed import Installed
    from monai_sasm.restoration.restorer import Restorer, torch_device
    from monai_sasm.types import Modality

    class Half(torch.nn.Module):
        def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
            return image / 2

    class Undecided(torch.nn.Module):
        classes = ("clean", "toy_ct", "toy_mr", "toy_photo")

        def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            height, width = (-(-side // 8) for side in image.shape[-2:])
            return torch.zeros(len(image), len(self.classes), height, width)

    experts = {
        f"toy_{modality.value.lower()}": Bundle(
            name=f"toy_{modality.value.lower()}",
            root=Path("nowhere"),
            role="expert",
            modality=modality,
            degradation="noise",
            noise_map=True,
            version="0.0.1",
            sha256="0" * 64,
            network=Half(),
            metadata={"sasm": {"role": "expert"}},
        )
        for modality in Modality.known()
    }
    gate = Bundle(
        "toy_gate",
        Path("nowhere"),
        "gate",
        None,
        None,
        True,
        "0.0.1",
        "1" * 64,
        Undecided(),
        {"sasm": {"role": "gate"}},
    )
    restorer = Restorer.of(experts, gate)

    def made(device: str = "auto", **_: Any) -> Restorer:
        torch_device(device)
        return restorer

    sections = restorer.experts.sections, {DEFAULT_GATE: {"role": "gate"}}, restorer.refiners.sections
    monkeypatch.setattr("monai_sasm.restoration.files.Restorer", made)
    monkeypatch.setattr("monai_sasm.batch.plan.Installed.find", lambda _: Installed(*sections, broken={}))
    return restorer
