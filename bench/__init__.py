"""The benchmark of the checkout, `make bench`: kdnb beside the plain way of distillation, in turn on one machine."""
