//! Reloads of a target that only notes what it is given.
