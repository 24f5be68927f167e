"""Whether a host or a cluster can measure: checks that only look, each with its mend."""
