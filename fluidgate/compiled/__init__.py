"""How compiled code is made: functions, the state they change, random numbers, and what is kept on disk."""

from fluidgate.compiled.functions import called, entry_point, inlined, is_on_disk, kept, needs_compilation
from fluidgate.compiled.pointers import call_pointer, pointer_to
from fluidgate.compiled.reference import Reference, by_reference, records

__all__ = [
    "Reference",
    "by_reference",
    "call_pointer",
    "called",
    "entry_point",
    "inlined",
    "is_on_disk",
    "kept",
    "needs_compilation",
    "pointer_to",
    "records",
]
