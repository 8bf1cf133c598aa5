"""regrad beside other ways to score images: how fast each is, and what each loses. Not part of the wheel."""
