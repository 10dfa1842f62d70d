"""Bundles: folders with a network, its configuration and its weights, that become experts, gates, segmenters."""

from monai_sasm.bundles.bundle import Bundle
from monai_sasm.bundles.copying import new_bundle
from monai_sasm.bundles.finding import available, shipped_folder, user_folder
from monai_sasm.bundles.gates import (
    DEFAULT_GATE,
    choose_default_gate,
    classes_for,
    default_gate,
    find_gate,
    gate_classes,
    no_gate,
)
from monai_sasm.bundles.loading import inference_parser, load
from monai_sasm.bundles.metadata import ROLES, read_metadata, readable_sections
from monai_sasm.bundles.running import bundle_root

__all__ = [
    "DEFAULT_GATE",
    "ROLES",
    "Bundle",
    "available",
    "bundle_root",
    "choose_default_gate",
    "classes_for",
    "default_gate",
    "find_gate",
    "gate_classes",
    "inference_parser",
    "load",
    "new_bundle",
    "no_gate",
    "read_metadata",
    "readable_sections",
    "shipped_folder",
    "user_folder",
]
