"""Files and texts that others may have written: read, replaced and printed safely."""
