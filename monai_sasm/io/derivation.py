"""Derivation: what was done to an image, for the headers and sidecars of the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

_UNCHANGED = " unchanged"
_REPAIRS = {
    "noise": "noise reduction",
    "low-dose": "noise and artefact reduction",
    "low-resolution": "super-resolution",
    "raindrop": "removal of raindrops",
}


def summary_of(repairs: Iterable[str]) -> str:
    """One sentence for people on what networks that repair these degradations do."""
    said = ", ".join(_REPAIRS.get(one, f"repair of {one}") for one in repairs) or "image restoration"
    return said[:1].upper() + said[1:]


@dataclass(frozen=True)
class Derivation:
    """How an image came about from its source; two equal derivations of one source give equal UIDs.

    Args:
        software: name of the tool.
        version: its version.
        models: bundle name -> sha256 of its weights, for every network that may have touched the pixels.
        parameters: options that change pixels (strength, passes, expert, ...).
        summary: one sentence for people, for example ``"noise reduction"``.
        label: short tag appended to the series description and used in file names, for example ``"SASM"``.
        warning: what every viewer of the image must be told, even where nothing else of this is written (PNG photos).
        settings: bundle name -> hash of what its files say beside the weights, see
            :attr:`monai_sasm.bundles.Bundle.settings`; it is not written, only told apart.
        repairs: degradations that its networks repair, see :attr:`monai_sasm.bundles.Bundle.degradation`, for the codes
            in headers; empty where that is not known.
    """

    software: str
    version: str
    models: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    summary: str = "image restoration"
    label: str = "SASM"
    warning: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    repairs: tuple[str, ...] = ()

    @property
    def unchanged(self) -> Derivation:
        """The same where no pixel was changed: a copy must not pass for a smoothed image."""
        label = self.label.removesuffix(_UNCHANGED) + _UNCHANGED
        return replace(self, summary="Copied: no pixel was changed", label=label)

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 over everything that determines the pixels."""
        record = [self.software, self.version, dict(self.models), dict(self.parameters), dict(self.settings)]
        return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def description(self) -> str:
        """One paragraph: tool, version, models with the first 12 digits of their hash, parameters."""
        models = ", ".join(f"{name} ({digest[:12]})" for name, digest in sorted(self.models.items())) or "no model"
        parameters = ", ".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return f"{self.summary} by {self.software} {self.version}; models: {models}; {parameters}".rstrip("; ")
