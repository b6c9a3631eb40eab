"""Types of what a user may give: a number has two ends, and they stand here.

Beyond its ends a number would overflow, ask for more memory than there is, or never
come to an end; so it is refused where it is read, in a sentence that names both.
"""

from typing import Annotated

from msgspec import Meta

LEAST = "least"
"""Key under which a type of numbers tells the smallest one above 0."""

TINY = 1e-15
"""The smallest number above 0 where a type says nothing: its square and its inverse are
still numbers."""

MOST_RANKS = 100_000
"""Ranks, measured or simulated: graphs over so many are still made within seconds."""

MOST_TRIALS = 10_000
"""Trials of a study: at two seconds each, they take six hours."""

LARGEST_SEED = 2**63 - 1
"""Seeds are keys of 64 bits, and the reader of JSON has whole numbers of so many."""

Ranks = Annotated[int, Meta(ge=1, le=MOST_RANKS)]
"""How many ranks."""

Rank = Annotated[int, Meta(ge=0, lt=MOST_RANKS)]
"""Which rank."""

Repeats = Annotated[int, Meta(ge=1, le=MOST_TRIALS)]
"""How often every trial is repeated."""

FirstSeed = Annotated[int, Meta(ge=0, le=2**62)]
"""Seed of the first repeat; those of the others follow it."""

Seed = Annotated[int, Meta(ge=0, le=LARGEST_SEED)]
"""Seed of a random generator."""

Count = Annotated[int, Meta(ge=1, le=10**9)]
"""Counts something, at least one."""

Index = Annotated[int, Meta(ge=0, le=10**9)]
"""Counts something, perhaps nothing."""

Servers = Annotated[int, Meta(ge=1, le=10**9, title="servers")]
"""How many ranks, the last ones, serve and compute no gradients."""

GraphName = Annotated[str, Meta(title="graph")]
"""The name of a graph over the workers; empty where it names none by default."""

Few = Annotated[int, Meta(ge=1, le=10**6)]
"""Counts what each takes memory or a request of its own: threads, jobs, classes."""

Classes = Annotated[int, Meta(ge=2, le=10_000)]
"""Classes to tell apart."""

Widths = Annotated[tuple[Few, ...], Meta(max_length=64)]
"""Sizes of layers, or of the dimensions of a sample."""

Many = Annotated[int, Meta(ge=1, le=10**15)]
"""Counts what is only added up: steps, samples, bytes."""

Bytes = Annotated[int, Meta(ge=0, le=10**15)]
"""Bytes, perhaps none."""

Copies = Annotated[int, Meta(ge=3, le=10_000)]
"""Models that a rank keeps for judging."""

Positive = Annotated[float, Meta(gt=0, le=1e30)]
"""A number above 0; learning rates may be beyond reason: divergence is a result."""

NotNegative = Annotated[float, Meta(ge=0, le=1e30)]
"""A number that may be 0 but not less."""

AnyNumber = Annotated[float, Meta(ge=-1e30, le=1e30)]
"""A number of either sign."""

Share = Annotated[float, Meta(ge=0, le=1)]
"""From 0 to 1."""

ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
"""From 0 to 1, but not 1."""

Ratio = Annotated[float, Meta(ge=1, le=1e12)]
"""How many times, at least once."""

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
"""Seconds; a billion are 31 years."""

Duration = Annotated[float, Meta(gt=0, le=1e9)]
"""Seconds above 0."""

Pause = Annotated[float, Meta(ge=0, le=1e5)]
"""Seconds that a rank waits on purpose, a day at most: no call of the system waits for
`Slower` times as many as nanoseconds of 64 bits can count."""

Slower = Annotated[float, Meta(ge=1, le=1e4)]
"""How many times as long a slow step takes."""

Variation = Annotated[float, Meta(ge=0, le=100)]
"""Standard deviation over the mean."""

Period = Annotated[float, Meta(ge=1e-6, le=1e9)]
"""Seconds after which something is drawn anew."""

FASTEST = 1e18
"""Bit/s of the fastest link: nothing that is sent takes any time."""

Rate = Annotated[float, Meta(ge=0, le=FASTEST, extra={LEAST: 1e3})]
"""Bit/s; 0 where there is no limit, or where it is not known."""

KnownRate = Annotated[float, Meta(ge=1e3, le=FASTEST)]
"""Bit/s, where it must be known."""

FittedRate = Annotated[float, Meta(ge=0, le=1e300)]
"""Bit/s of a line through times that hardly grow with the size; 0 if they do not."""

Concentration = Annotated[float, Meta(gt=0, le=1e9, extra={LEAST: 1e-6})]
"""Of a Dirichlet distribution; with less all is on one rank, with more all is even."""
