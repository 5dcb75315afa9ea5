"""What a kernel says when it finds its state broken."""

from fluidgate.errors import FluidgateError


class InvariantError(FluidgateError):
    """The state is one that it can't be in, or a decision gave an answer that it may not: a fault of the policy or of
    the kernel."""
