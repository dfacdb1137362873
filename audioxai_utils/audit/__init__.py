"""Is it true? Findings on the protocol, sanity checks, localisation, robustness, noise."""
