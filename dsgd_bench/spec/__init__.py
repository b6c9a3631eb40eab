"""What can be asked for, as frozen records: trials, machines, networks, batches."""
