"""The parts of `sweep`: from a file to trials, their checks, their runs on Ray, their results."""
