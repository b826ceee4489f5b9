//! HTML, as hawkgate's own pages need it.

/// Escapes text for an element's content or a quoted attribute (HTML standard §13.3).
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn text_cannot_become_markup() {
        let escaped = escape("<a b=\"c\">&'");
        assert_eq!(escaped, "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
        assert_eq!(escape("ä = 1;"), "ä = 1;");
    }
}
