"""Volumes: many-page TIFF, DICOM and NIfTI as rows of slices that are read one at a time.

`find` turns inputs into a `VolumeSet`; `tiff`, `dicom` and `nifti` read; `names` keeps identifiers out of results.
The packages behind DICOM and NIfTI are optional and imported when a file of theirs is met.
"""
