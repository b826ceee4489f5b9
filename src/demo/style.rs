//! Terminal output: emphasis with ANSI escapes, on a terminal only.

/// How text is emphasised.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    ansi: bool,
}

impl Style {
    /// Creates a style that emphasises with ANSI escapes if `ansi` is set, and not at all
    /// otherwise.
    pub fn new(ansi: bool) -> Self {
        Self { ansi }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.ansi {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Bold, for a heading.
    pub(super) fn title(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Green, for a step that succeeded.
    pub(super) fn success(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Cyan, padded to the width of a column, for the sender and receiver of a message.
    pub(super) fn party(self, text: &str) -> String {
        self.wrap("36", &format!("{text:<21}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ansi_escapes_are_written_only_when_enabled() {
        assert_eq!(Style::new(false).title("a"), "a");
        assert_eq!(Style::new(true).title("a"), "\u{1b}[1ma\u{1b}[0m");
        assert_eq!(Style::new(false).party("you").len(), 21);
    }
}
