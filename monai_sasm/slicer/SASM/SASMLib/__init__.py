"""What the Slicer module does that is not Slicer's: files of volumes, requests to the server, one restoration.

Runs in Slicer's own Python (3.9 and later) with its NumPy and the standard library, and nothing else.
"""
