"""Fill holes in code, on both sides of the cursor, with a discrete-diffusion model.

    from diffcode import Infiller
    fill = Infiller.from_pretrained().fill("def area(r):\n    return ???\n", marker="???")

Names are imported when first used: `import diffcode` and `diffcode --help` load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from diffcode.version import VERSION

if TYPE_CHECKING:
    from diffcode.denoise import Frame as Frame
    from diffcode.denoise import Place as Place
    from diffcode.errors import DiffcodeError as DiffcodeError
    from diffcode.infill import Fill as Fill
    from diffcode.infill import Infiller as Infiller
    from diffcode.infill import SpanFill as SpanFill

__version__ = VERSION
_HOMES = {
    "Infiller": "diffcode.infill",
    "Fill": "diffcode.infill",
    "SpanFill": "diffcode.infill",
    "Frame": "diffcode.denoise",
    "Place": "diffcode.denoise",
    "DiffcodeError": "diffcode.errors",
}
__all__ = ["DiffcodeError", "Fill", "Frame", "Infiller", "Place", "SpanFill", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffcode' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
