"""What objectives share, and nobody else reads: estimates, surrogates, requirements, calibration, compiling."""
