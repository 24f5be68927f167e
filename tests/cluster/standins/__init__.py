"""Programs, charts and manifests that stand in for agents whose images a test cluster lacks."""
