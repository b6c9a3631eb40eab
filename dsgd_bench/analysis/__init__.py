"""From traces to numbers: rows, groups, intervals, comparisons; no MPI, no HDF5."""
