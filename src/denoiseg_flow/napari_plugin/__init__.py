"""A plugin of napari: look at results, predict, correct masks, start studies.

What it does is in the modules here, which do not import napari; what is shown is in ``widgets``.
``napari.yaml`` tells napari what there is.
"""
