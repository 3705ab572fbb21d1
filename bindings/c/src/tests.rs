//! Tests over the whole of the interface.
