"""neurokd carries what 2D vision transformers learnt from natural images into 3D neuron segmentation.

The input is a stack, the output an SWC tree::

    stack --data--> volume --models--> student --inference--> probability --inference.trace--> tree --> .swc
                                          ^                        |
                       2D teacher --------+ training               +--evaluation, viz

A public name is loaded when it is first used (PEP 562), so ``import neurokd`` is fast: it does not load
torch, timm or MONAI. The file ``__init__.pyi`` beside this one lists each public name and its module. Editors
and type checkers read it too.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
