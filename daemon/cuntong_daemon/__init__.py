"""The node's service: replicates signed bundles and shows only what was verified."""
