"""NRRD, MetaImage and MGH: volumes of Slicer, ITK and FreeSurfer, read slab by slab and written back as they came."""
