"""What runs on the node during a measurement: vanilla, or an agent with its policy."""
