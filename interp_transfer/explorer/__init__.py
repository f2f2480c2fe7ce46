"""The explorer: steer a model, or two, by hand, in a notebook or in a browser. `opening.explore` is where it begins."""
