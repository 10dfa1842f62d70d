"""Fixtures of the tests of the node: who it talks to, and what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.io.dicom.dicom_cases import ct_slice, save

if TYPE_CHECKING:
    from tests.node.test_dicomweb import Server
    from tests.node.test_node import Archive


@pytest.fixture
def archive() -> Iterator[Archive]:
    """An archive that takes everything, or answers with a status of the test's choice."""
    from tests.node.test_node import Archive

    one = Archive()
    one.start()
    yield one
    one.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A DICOMweb server that answers what the test says."""
    from tests.node.test_dicomweb import Server

    one = Server()
    yield one
    one.close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A CT series."""
    from tests.node.test_dicomweb import SLICES

    return [save(ct_slice(number), tmp_path / "source" / f"{number}.dcm") for number in range(SLICES)]
