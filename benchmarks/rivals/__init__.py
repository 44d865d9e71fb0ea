"""Others' ways to the same gradients: by hand and by Pyro in this process, by workers in their own."""
