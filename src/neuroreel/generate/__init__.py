"""Features to video: generators, deconvolution, retrieval."""
