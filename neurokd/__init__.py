"""neurokd carries what 2D vision transformers learnt from natural images into 3D neuron segmentation.

Stack in, SWC tree out::

    stack --data--> volume --models--> student --inference--> probability --inference.trace--> tree --> .swc
                                          ^                        |
                       2D teacher --------+ training               +--evaluation, viz

The public names are loaded when they are first used (PEP 562), so that ``import neurokd`` costs
next to nothing: neither torch nor timm nor MONAI is loaded by it. Which name comes from which
module stands in one place, ``__init__.pyi`` beside this file, which editors and type checkers read too.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
