//! The table.

/// All figures.
#[derive(Default)]
pub(crate) struct Report(Vec<[String; 3]>);

impl Report {
    /// Adds a row, and shows it at once.
    pub(crate) fn add(&mut self, figure: &str, wanted: &str, measured: String) {
        eprintln!("  {figure}: {measured}");
        self.0
            .push([figure.to_owned(), wanted.to_owned(), measured]);
    }

    /// Prints everything as Markdown.
    pub(crate) fn print(&self) {
        println!("| figure | wanted | measured |\n|---|---|---|");
        for row in &self.0 {
            println!("| {} |", row.join(" | "));
        }
    }
}
