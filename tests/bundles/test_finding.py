"""Names of bundles: which folder each stands for, and what is said where two folders want one."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_sasm.bundles import available, shipped_folder
from monai_sasm.bundles.finding import beside
from monai_sasm.errors import BundleError
from tests.toy_bundles import write_gain_expert


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty bundle folder of the user."""
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "user"))
    return tmp_path / "user"


def test_two_trusted_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = (write_gain_expert(tmp_path / place / "twin", 0.5) for place in ("a", "b"))
    for trust in ([one, other], [tmp_path / "b", one]):
        with pytest.raises(BundleError, match=r"are named 'twin', .* and .*twin; rename one, or trust one alone"):
            available(trust)
    assert available([one, tmp_path / "a"])["twin"] == one


def test_what_takes_the_place_of_another_is_told_once(
    user: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_gain_expert(tmp_path / "own" / "lowdose_ct_unet", 0.5, "CT", "low-dose")
    installed, trusted = (write_gain_expert(place / "twin", 0.5) for place in (user, tmp_path / "own"))
    for _ in range(2):
        found = available([tmp_path / "own"])
    assert (found["lowdose_ct_unet"], found["twin"]) == (own, trusted)
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"lowdose_ct_unet is the bundle {own}, in place of {shipped_folder() / 'lowdose_ct_unet'} of that name",
        f"twin is the bundle {trusted}, in place of {installed} of that name",
    ]
    caplog.clear()
    available([user])
    assert not caplog.records


def test_a_bundle_is_named_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_gain_expert(tmp_path / "own", 0.5)
    monkeypatch.chdir(own)
    assert available(["."])["own"].resolve() == own
    monkeypatch.chdir(own / "configs")
    assert available([".."])["own"].resolve() == own


def test_a_trusted_folder_without_a_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for name in ("pairs", "nowhere"):
        with pytest.raises(
            BundleError, match=rf"no bundle is in the trusted folder .*{name}: name one, a folder that holds"
        ):
            available([tmp_path / name])
        assert beside(tmp_path / name) == ()
    write_gain_expert(tmp_path / "pairs" / "own", 0.5)
    assert available(beside(tmp_path / "pairs"))["own"] == tmp_path / "pairs" / "own"
