"""ppgrad against named rivals: `suite` races what `programs` has, `rivals` are the others' ways, `ways` are ours."""
