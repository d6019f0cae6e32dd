"""`make screenshots`: what the plugin looks like on a terminal, as SVG for the documentation."""
