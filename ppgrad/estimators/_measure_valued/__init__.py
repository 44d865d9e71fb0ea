"""The weak derivatives of `MeasureValued`, a family of distributions a file."""
