"""neuroreel: reconstruct what people see, images and video, from fMRI."""

__version__ = "0.1.0"
