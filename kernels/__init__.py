"""The ops: functions of tensors, one folder each, with a reference and fast backends."""
