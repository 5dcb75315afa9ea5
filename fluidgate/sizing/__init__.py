"""How many GPUs: the fewest that keep percentiles, means and shares, bounded by the program, proven by simulation."""

from fluidgate.sizing.answer import Answer, Sizing
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.size import size
from fluidgate.sizing.targets import Target

__all__ = ["Answer", "Choice", "Sizing", "Target", "size"]
