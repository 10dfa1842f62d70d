"""NIfTI: reading, writing, and exporting other images as NIfTI."""
