"""Vectors in the memory of GPUs, and how they reach other ranks."""
