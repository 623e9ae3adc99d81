"""Static quantisation: what a graph is calibrated on, what is seen, the ranges chosen, and where it is put."""
