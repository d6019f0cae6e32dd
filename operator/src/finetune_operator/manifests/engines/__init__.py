"""One module for each value of the engine enum: container, arguments, ports and probes of a serving pod."""
