"""What a bundle asks for and is installed in an earlier version is told, and the bundle is loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.bundles import asked_versions, load
from monai_sasm.bundles.asked_versions import newer_than_installed
from monai_sasm.bundles.checking import check_runs
from tests.bundle_cases import BUNDLES
from tests.toy_bundles import write_gain_expert

HERE = {"monai": "1.6.1", "torch": "2.13.0+cpu", "numpy": "2.4.6", "scikit-image": "0.26.0rc1"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package not in HERE:
            raise asked_versions.PackageNotFoundError(package)
        return HERE[package]

    monkeypatch.setattr(asked_versions, "version", version)
    monkeypatch.setattr(asked_versions, "__version__", "0.3.0")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"monai_version": "1.10"}, ["monai 1.10 (1.6.1 is installed)"]),
        ({"monai_version": "1.6.1", "pytorch_version": "2.13", "numpy_version": "1.26.4"}, []),
        ({"pytorch_version": "3"}, ["torch 3 (2.13.0+cpu is installed)"]),
        ({"required_packages_version": {"scikit-image": "0.26.0", "nibabel": "99"}}, []),
        (
            {"required_packages_version": {"monai_sasm": "0.4"}, "optional_packages_version": {"numpy": "3.0"}},
            ["monai_sasm 0.4 (0.3.0 is installed)", "numpy 3.0 (2.4.6 is installed)"],
        ),
        ({"monai_version": None, "numpy_version": "newest", "required_packages_version": ["monai"]}, []),
    ],
)
def test_what_is_newer(metadata: dict[str, Any], told: list[str]) -> None:
    assert newer_than_installed(metadata) == told


def test_it_is_told_once_where_a_bundle_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_gain_expert(tmp_path / "toy", gain=2.0)
    file = root / "configs" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"monai_version": "1.7"}))
    with caplog.at_level(logging.WARNING, "monai_sasm"):
        check_runs(root)
        assert load(root).name == "toy"
    assert [record.getMessage() for record in caplog.records] == [
        "the bundle toy asks for newer packages: monai 1.7 (1.6.1 is installed); update them should it not run rightly"
    ]


def test_shipped_bundles_are_tested_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(HERE, "torch", "2.0")
    with caplog.at_level(logging.WARNING, "monai_sasm"):
        load(next(one for one in BUNDLES if one.name == "noise_mri_unet"))
    assert not [record for record in caplog.records if "newer packages" in record.getMessage()]
