"""``dsgd-bench replay``: what a run would have taken with something else about it.

`record` reads the trace, `scenes` replays it, `whatif` asks the questions, `tables`
prints the answers.
"""
