"""rlstack: offline, semi-online and online post-training of language models in one loop."""

__version__ = "0.1.0"
