"""The vocabulary of this package: modalities with their profiles, tensor shapes as annotations.

Importing this file loads neither torch nor MONAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    ImageBatch = Float[Tensor, "batch channels height width"]
    NoiseMap = Float[Tensor, "batch 1 height width"]
    ExpertLogits = Float[Tensor, "batch experts height width"]
    ExpertWeights = Float[Tensor, "batch experts height width"]

_TENSORS = {
    "ImageBatch": "batch channels height width",  # in the working scale of the modality
    "NoiseMap": "batch 1 height width",  # noise standard deviation per pixel, in the unit of its image
    "ExpertLogits": "batch experts height width",  # gate scores before normalisation; class 0 is the identity
    "ExpertWeights": "batch experts height width",  # at least 0, sum 1 over experts; class 0 is the identity
}


def __getattr__(name: str) -> Any:
    """Tensor aliases, built on first use so that the enums below can be had without loading torch."""
    if name not in _TENSORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtyping import Float
    from torch import Tensor

    return Float[Tensor, _TENSORS[name]]


class Modality(str):
    """What kind of device made an image; experts of other modalities do not act on it.

    A string that names a :class:`ModalityProfile`: ``Modality("CT") is Modality.CT``, and so is ``Modality("ct")``. CT,
    MR and PHOTO are known from the start; :func:`register` adds others.

    Raises:
        ValueError: no profile has that name.
    """

    CT: ClassVar[Modality]
    MR: ClassVar[Modality]
    PHOTO: ClassVar[Modality]

    def __new__(cls, name: str) -> Modality:
        spellings = (name, name.upper()) if isinstance(name, str) else ()
        if not any(one in _KNOWN for one in spellings):
            _load_plugins()
        for spelling in spellings:
            if spelling in _KNOWN:
                return _KNOWN[spelling]
        raise ValueError(f"{name!r} is no known modality; there are {', '.join(_KNOWN)}")

    @classmethod
    def known(cls) -> tuple[Modality, ...]:
        """All of them, in the order in which they were registered."""
        _load_plugins()
        return tuple(_KNOWN.values())

    @property
    def value(self) -> str:
        """The name as a plain string."""
        return str.__str__(self)

    @property
    def profile(self) -> ModalityProfile:
        """How its images are handled."""
        return _PROFILES[self.value]

    def __reduce__(self) -> tuple[type[Modality], tuple[str]]:
        return Modality, (self.value,)

    def __repr__(self) -> str:
        return (
            f"<Modality.{self.value}: {self.value!r}>"  # names of DICOM results are hashes over it and must not change
        )


@dataclass(frozen=True)
class DicomProfile:
    """DICOM objects of a modality, whose name is their Modality attribute.

    Args:
        sop_class: storage class of one slice a file.
        enhanced: storage classes of many frames a file.
        type_2: attributes that may be empty but not absent (PS3.5 7.4), beside those of every image.
        rescale_types: values of Rescale Type with which ``stored * slope + intercept`` is in the unit of the profile;
            any when empty.
        rescaled: Rescale Slope and Intercept are written where the source left them to the reader.
        plausible: lowest and highest value that a device makes; beyond lie markers and wrongly decoded pixels.
    """

    sop_class: str
    enhanced: tuple[str, ...] = ()
    type_2: tuple[str, ...] = ()
    rescale_types: tuple[str, ...] = ()
    rescaled: bool = False
    plausible: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModalityProfile:
    """All that the package has to know about one modality.

    Args:
        name: short and upper case, as in ``--modality`` and in bundles; where DICOM knows it, its Modality attribute.
        unit: in which the numbers of an image are, in short.
        quantity: what they measure, for people.
        images: what its images are called, for people.
        scale: span of the image, in its unit, that becomes 1 in the working scale of the networks.
        percentile: instead, that percentile of the foreground of each image becomes 1.
        window: ends, in working scale, of what the gate looks at.
        tissue: ends, in working scale, of the mean of tissue that is uniform where noise is measured.
        air: value, in working scale, below which there is nothing where it reaches the border of an image.
        passes: how often gate and experts look at an image by default.
        channels: colours that the networks take.
        trained: lowest and highest value, in the unit of the image, that networks were trained on: they are shown
            others at the nearer end and leave them as they are.
        nonnegative: no value lies below 0, or below the darkest of the input.
        rician: images are magnitudes of complex ones, whose noise is Rician: less of it where they are dark.
        is_picture: without a place in space: may be enlarged and refined, has PNG and not NIfTI maps.
        noise: range of the standard deviation of Gaussian noise that ``sasm degrade`` draws; in the unit of the image,
            or with ``percentile`` in working scale.
        metric_window: range of quality metrics; in the unit of the image, or with ``percentile`` in working scale.
        metric_clips: whether images are clipped to it first.
        bids_suffixes: regular expression of the suffixes that BIDS names of such images end with.
        dicom: how DICOM holds it; ``None`` where it comes from other files only.
    """

    name: str
    unit: str
    quantity: str
    images: str
    scale: float = 1.0
    percentile: float | None = None
    window: tuple[float, float] = (0.0, 1.0)
    tissue: tuple[float, float] = (0.1, 0.95)  # neither background nor white
    air: float | None = None
    passes: int = 1
    channels: int = 1
    trained: tuple[float, float] | None = None
    nonnegative: bool = False
    rician: bool = False
    is_picture: bool = False
    noise: tuple[float, float] = (0.02, 0.15)
    metric_window: tuple[float, float] = (0.0, 1.0)
    metric_clips: bool = False
    bids_suffixes: str = ""
    dicom: DicomProfile | None = None

    @property
    def relative(self) -> bool:
        """Whether users tell noise in percent of white: the unit of the image has no scale of its own."""
        return self.is_picture or self.percentile is not None


PLUGINS = "monai_sasm.modalities"
"""Entry points of installed packages under this group are loaded when a modality is asked for that is not known: each
is a module that registers its profile."""
_PROFILES: dict[str, ModalityProfile] = {}
_KNOWN: dict[str, Modality] = {}


def register(profile: ModalityProfile) -> Modality:
    """Make a modality known; the same profile again changes nothing.

    Raises:
        ValueError: another profile has that name, or one of its numbers cannot be.
    """
    if _PROFILES.get(profile.name, profile) != profile:
        raise ValueError(f"another profile is registered as {profile.name}; choose another name")
    low, high = profile.window
    if profile.name != profile.name.upper() or profile.scale <= 0 or low >= high or profile.passes < 1:
        raise ValueError(f"{profile.name}: needs an upper-case name, scale above 0, a window and at least one pass")
    if profile.name not in _KNOWN:
        _PROFILES[profile.name] = profile
        _KNOWN[profile.name] = str.__new__(Modality, profile.name)
    return _KNOWN[profile.name]


@cache
def _load_plugins() -> None:
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGINS):
        point.load()


Modality.CT = register(
    ModalityProfile(
        "CT",
        unit="HU",
        quantity="Hounsfield units",
        images="CT images",
        scale=1000.0,  # 0 is water, -1 is air, 1 is dense bone
        window=(-0.2, 0.3),  # soft tissue, where dose shows
        tissue=(0.0, 0.12),  # soft: fat lies at the rim, where there is less noise
        air=-0.95,  # emphysema lies above it
        trained=(-1024.0, 3071.0),  # 12 bits
        noise=(10.0, 60.0),
        metric_window=(-160.0, 240.0),  # abdominal soft tissue (RED-CNN and its successors)
        metric_clips=True,
        bids_suffixes="ct",
        dicom=DicomProfile(
            "1.2.840.10008.5.1.4.1.1.2",
            enhanced=("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),
            type_2=("KVP", "AcquisitionNumber"),
            rescale_types=("", "HU"),
            rescaled=True,
            plausible=(-4096.0, 31743.0),  # 16-bit extended scale
        ),
    )
)
Modality.MR = register(
    ModalityProfile(
        "MR",
        unit="MR",  # arbitrary units of one series
        quantity="MR magnitude",
        images="MR images",
        percentile=99.5,  # above it lie vessels, fat and the bright rim near surface coils
        window=(0.0, 1.2),
        nonnegative=True,
        rician=True,
        bids_suffixes="T[12]w|T2starw|PDw|PDT2|FLAIR|inplaneT[12]|angio|bold|sbref|dwi|epi|asl|m0scan",
        dicom=DicomProfile(
            "1.2.840.10008.5.1.4.1.1.4",
            enhanced=("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"),
            type_2=("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength"),
        ),
    )
)
Modality.PHOTO = register(
    ModalityProfile(
        "PHOTO",
        unit="sRGB",
        quantity="display values",
        images="photos",
        passes=2,
        channels=3,
        is_picture=True,
        noise=(0.02, 0.2),
    )
)
