"""The DICOM node: series come in, are restored, and go on to a PACS; nothing is lost, all is sent at least once."""
