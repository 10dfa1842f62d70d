"""Slice profiles: what is interpolated averages to what was measured, and each profile is the physics it names."""

from __future__ import annotations

import numpy as np
import pytest

from monai_sasm.degradations.slice_profile import PROFILES, SliceProfile, _cosines, _natural_spline

SIZES = [(5, 20), (7, 10), (22, 205), (2, 3), (4, 4)]


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize(("thick", "thin"), SIZES)
def test_interpolated_slices_average_to_the_measured_ones(thick: int, thin: int, kind: str) -> None:
    profile = SliceProfile(thick, thin, kind)
    np.testing.assert_allclose(profile.averaging @ profile.interpolation, np.eye(thick), atol=1e-12)
    for matrix in (profile.averaging, profile.interpolation):
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12, err_msg="a constant stays a constant")


@pytest.mark.parametrize("kind", PROFILES)
def test_any_volume_can_be_made_consistent(kind: str) -> None:
    generator = np.random.default_rng(0)
    profile = SliceProfile(6, 20, kind)
    thin, thick = (generator.normal(size=(count, 3, 4)).astype(np.float32) for count in (20, 6))
    consistent = profile.consistent(thin, thick)
    np.testing.assert_allclose(profile.measure(consistent), thick, atol=1e-5)
    np.testing.assert_allclose(profile.consistent(consistent, thick), consistent, atol=1e-5)
    assert consistent.dtype == np.float32


def test_a_slab_is_the_mean_over_its_thickness() -> None:
    thin = np.arange(12, dtype=np.float32)[:, None]
    np.testing.assert_allclose(SliceProfile(4, 12).measure(thin)[:, 0], [1, 4, 7, 10])
    np.testing.assert_allclose(SliceProfile(2, 3).measure(thin[:3])[:, 0], [1 / 3, 5 / 3], atol=1e-6)


def test_a_sinc_profile_keeps_low_frequencies_and_removes_high_ones() -> None:
    place = (np.arange(40) + 0.5) / 40
    low, high = (np.cos(np.pi * count * place).astype(np.float32)[:, None] for count in (6, 14))
    profile = SliceProfile(10, 40, "sinc")
    np.testing.assert_allclose(profile.interpolate(profile.measure(low)), low, atol=1e-5)
    np.testing.assert_allclose(profile.measure(high), 0, atol=1e-5)


def test_the_spline_finds_a_smooth_course_between_slabs() -> None:
    def bump(count: int) -> np.ndarray:
        edges = np.arange(count + 1) / count
        return (np.diff(np.sin(2 * np.pi * edges) / (2 * np.pi)) * count).astype(np.float32)[
            :, None
        ]  # means of a cosine

    error = np.abs(SliceProfile(20, 80).interpolate(bump(20)) - bump(80))
    nearest = np.abs(np.repeat(bump(20), 4, axis=0) - bump(80))
    assert float(error.max()) < 5e-3
    assert float(nearest.max()) > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((4, 8, "box"), "one of"), ((1, 8), "at least 2"), ((8, 4), "as many thin")],
)
def test_wrong_profiles_are_refused(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        SliceProfile(*arguments)


@pytest.mark.parametrize(("thick", "thin"), [(1, 3), (4, 10), (7, 21), (5, 3)])
def test_the_mathematics_is_scipys(thick: int, thin: int) -> None:
    from scipy.fft import dct
    from scipy.interpolate import CubicSpline

    np.testing.assert_allclose(_cosines(thin), dct(np.eye(thin), axis=0, norm="ortho"), atol=1e-12)
    knots = np.random.default_rng(0).standard_normal((thick + 1, 2))
    where = np.linspace(0, thick, thin + 1)
    theirs = CubicSpline(np.arange(thick + 1), knots, bc_type="natural")(where)
    np.testing.assert_allclose(_natural_spline(knots, where), theirs, atol=1e-12)
