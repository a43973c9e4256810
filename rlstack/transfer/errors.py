"""What a transfer fails with, in a module that imports nothing heavy: the driver catches it."""


class TransferError(RuntimeError):
    """A transfer did not happen, or not as it should; the engines keep the weights that they have."""


class LandingError(TransferError):
    """Weights were only partly replaced: the engine is of no use any more."""
