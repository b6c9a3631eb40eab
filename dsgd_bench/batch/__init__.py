"""Batch systems: what a machine file may ask of them, and how jobs are sent."""
