"""The 3D Slicer module ``SASM``: a folder that Slicer is pointed at, whose files run in Slicer's own Python."""
