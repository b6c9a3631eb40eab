"""dsgd_bench: which distributed SGD algorithm reaches the target first, and why?"""

__version__ = "0.1.0"
