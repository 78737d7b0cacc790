"""Bold to features and back: linear decoders, encoding models, masked modelling, alignment of subjects."""
