"""Mixtures of real events whose stems are known, and a tagger as it is: does a label's explanation point at
its own event, and not at the others?

scenes      two to four recordings of ESC-50 at known onsets and levels; which labels a tagger hears in them
measures    how well a map points at its event: in time, a tenth of a second at a time, and among the stems
judge       every method on every heard label, resumable, on any device
tables      means with intervals beside the field's own figures, and what they say
"""
