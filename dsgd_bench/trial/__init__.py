"""One trial on one rank: warm up, drive the steps, take snapshots, evaluate, save."""
