pub(super) const KNOWN_DIFFERENCES: &[(&str, &str, &str)] = &[];
