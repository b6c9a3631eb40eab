"""The measured fabric: windows, messages and threads of MPI."""
