"""Cut long text so that a model can still read its start and its end."""

HEAD_SHARE = 0.6


def excerpt(text: str, limit: int, note: str) -> str:
    """The text, or its head and tail around a note if it is longer than `limit` characters.

    Args:
        text: What to cut.
        limit: Most characters of the text to keep; the note comes on top.
        note: Where the whole is kept, as a phrase that ends a sentence.
    """
    if len(text) <= limit:
        return text
    head = text[: int(limit * HEAD_SHARE)]
    tail = text[len(text) - (limit - len(head)) :]
    left_out = len(text) - limit
    return f"{head}\n[… {left_out:,} of {len(text):,} characters left out here; {note} …]\n{tail}"
