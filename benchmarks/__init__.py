"""Programs that measure speed and memory; each reports ratios measured side by side in one run."""
