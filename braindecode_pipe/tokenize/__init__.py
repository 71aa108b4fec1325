"""From sensors to tokens: clusters of voxels, patches of series and surfaces, where they lie."""
