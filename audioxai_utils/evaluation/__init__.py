"""What a mask is worth: masks, metrics, controls, scores, intervals, tables."""
