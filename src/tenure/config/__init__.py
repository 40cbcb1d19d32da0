"""One frozen tree of settings, composed of the parts that each layer defines for itself."""
