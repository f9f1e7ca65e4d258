"""The panels of the plugin, opened from the menu Plugins of napari."""
