"""A local web page that shows what a model finds for a text and why, and what its clusters hold.

`elias_idx.explore.page` serves it and needs the extra `elias_idx[explore]`.
"""
