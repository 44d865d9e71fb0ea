"""What several estimators share: elements of discrete sites, their relaxations, contrasts of two runs."""
