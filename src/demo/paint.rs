//! What the terminal shows: colours only where there is one.

/// How text is emphasised.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    /// With colours (ANSI escapes) or without.
    pub fn new(colours: bool) -> Self {
        Self { colours }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// A heading.
    pub(super) fn title(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Something that went as it must.
    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// A party's name.
    pub(super) fn party(self, text: &str) -> String {
        self.wrap("36", &format!("{text:<21}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_when_asked_for() {
        assert_eq!(Paint::new(false).title("a"), "a");
        assert_eq!(Paint::new(true).title("a"), "\u{1b}[1ma\u{1b}[0m");
        assert_eq!(Paint::new(false).party("you").len(), 21);
    }
}
