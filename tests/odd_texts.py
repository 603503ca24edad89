"""Random texts with everything in them that may be taken for a line end."""

from hypothesis import strategies as st

ENDS = ["\n", "\r\n", "\r"]
# what str.splitlines takes for line ends and editors do not
TRICKY = "\f\v\x1c\x85\u2028\u2029\ufeff\U0001f600é\tab "
texts = st.lists(st.sampled_from([*TRICKY, *ENDS]) | st.characters(codec="utf-8", exclude_characters="\0")).map("".join)
