"""Import this before torchvision, which SGLang's image processors import: its compiled part on PyPI is for CUDA.

Two of its modules describe operators of that part, and fail without it.
"""

import sys
import types

for part in ("_meta_registrations", "_autograd_registrations"):
    sys.modules[f"torchvision.{part}"] = types.ModuleType(part)
