"""The DICOM node: series come in by C-STORE, are restored, and go on to a PACS; nothing is lost, nothing goes twice."""
