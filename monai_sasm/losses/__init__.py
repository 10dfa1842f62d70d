"""Losses that MONAI lacks, and the image features they compare."""
