//! Sessions with a fake provider and a manual clock.
