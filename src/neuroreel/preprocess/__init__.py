"""Bold to Bold: cleaning, timing, scaling, choice of voxels, noise ceilings."""
