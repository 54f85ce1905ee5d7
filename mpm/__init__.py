"""Mineral prospectivity mapping with masked autoencoders.

The notebooks hold the argument, the modules of this package hold the steps they call. Importing
`mpm` is fast and imports nothing heavy; import the module you need: `from mpm import datacube`.
"""

import os

# Threads that spin long while they wait make training ten times slower as soon as anything else
# runs on the machine; threads that do not spin at all make it half as fast when nothing does.
# OpenMP reads this when torch or scikit-learn load it, so it must be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
