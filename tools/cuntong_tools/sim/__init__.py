"""`cuntong sim`: the door to the simulations, which are installed or not."""
