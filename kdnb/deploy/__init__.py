"""Using a student where it is needed. Still empty: `kdnb.measure.predict` gives the logits of a split."""
