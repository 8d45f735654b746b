"""What the files of a model say: found, checked and read without computing anything."""
