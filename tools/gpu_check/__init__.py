"""Checks of the GPU code on a machine with NVIDIA GPUs, in one command that needs no network."""
