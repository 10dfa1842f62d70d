"""The MONAI Label app: restoration, segmentation, and restoration before segmentation, for 3D Slicer and REST clients.

It runs in MONAI Label's own environment, which ``sasm label-environment`` makes. ``app`` and ``tasks`` speak
MONAI Label's language; the other files know nothing of it.
"""
