"""Programs as data: an interpreter that shares nothing with the engine, and the same programs as Pyro code."""
