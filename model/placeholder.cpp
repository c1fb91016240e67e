// Keeps the target non-empty until its first source is here; remove it then.
