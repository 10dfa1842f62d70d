"""DICOM: finding series, reading them, and writing derived ones."""
