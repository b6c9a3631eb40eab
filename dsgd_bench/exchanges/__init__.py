"""What ranks do with each other, built once on `fabric.base` for every transport."""
