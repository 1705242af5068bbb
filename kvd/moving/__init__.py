"""
Moves values from one store to another, whatever engines keep them.

- `comparing` walks over two stores side by side.
- `copying` copies one value, and reads it back.
- `mirror` does what is needed for each key, several at a time.
- `fallback` serves two stores as one meanwhile.
"""
