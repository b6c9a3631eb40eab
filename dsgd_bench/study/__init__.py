"""Many trials: planned, started on ranks or simulated, watched, and resumed."""
