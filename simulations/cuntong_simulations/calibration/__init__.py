"""Calibration: real daemons in the laboratory, and the parameters with which the planning model agrees with them."""
