//! The OpenMetrics text format
//! (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplar::Exemplar;

/// Units that a family's name may end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Writes `families`; `exemplar` knows one for a histogram's bucket, by the family's name,
/// its labels and the bucket's index.
pub(super) fn write(
    families: &[MetricFamily],
    exemplar: impl Fn(&str, &[LabelPair], usize) -> Option<Exemplar>,
) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(16 * 1024);
    for family in families {
        let written = Family::of(family);
        written.head(&mut out)?;
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::HISTOGRAM => written.histogram(&mut out, metric, &exemplar)?,
                MetricType::COUNTER => {
                    written.sample(&mut out, "_total", metric, metric.get_counter().get_value())?;
                }
                _ => {
                    let suffix = if written.kind == "info" { "_info" } else { "" };
                    written.sample(&mut out, suffix, metric, metric.get_gauge().get_value())?;
                }
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(out)
}

struct Family<'f> {
    /// Without the suffix that its kind's samples have.
    name: &'f str,
    kind: &'static str,
    help: &'f str,
}

impl<'f> Family<'f> {
    fn of(family: &'f MetricFamily) -> Self {
        let whole = family.name();
        let (kind, suffix) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", "_total"),
            MetricType::HISTOGRAM => ("histogram", ""),
            _ if whole.ends_with("_info") => ("info", "_info"),
            _ => ("gauge", ""),
        };
        Self {
            name: whole.strip_suffix(suffix).unwrap_or(whole),
            kind,
            help: family.help(),
        }
    }

    fn head(&self, out: &mut String) -> fmt::Result {
        let Self { name, kind, help } = self;
        writeln!(out, "# TYPE {name} {kind}")?;
        let unit = UNITS
            .iter()
            .find(|unit| name.strip_suffix(*unit).is_some_and(|n| n.ends_with('_')));
        if let Some(unit) = unit {
            writeln!(out, "# UNIT {name} {unit}")?;
        }
        writeln!(out, "# HELP {name} {}", Escaped(help))
    }

    fn sample(&self, out: &mut String, suffix: &str, metric: &Metric, value: f64) -> fmt::Result {
        write!(out, "{}{suffix}", self.name)?;
        labels(out, metric.get_label(), None)?;
        writeln!(out, " {value}")
    }

    fn histogram(
        &self,
        out: &mut String,
        metric: &Metric,
        exemplar: &impl Fn(&str, &[LabelPair], usize) -> Option<Exemplar>,
    ) -> fmt::Result {
        let histogram = metric.get_histogram();
        let own = metric.get_label();
        let bounded = histogram
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .filter(|(bound, _)| bound.is_finite());
        let rest = (f64::INFINITY, histogram.get_sample_count());
        for (index, (bound, count)) in bounded.chain([rest]).enumerate() {
            write!(out, "{}_bucket", self.name)?;
            labels(out, own, Some(&number(bound)))?;
            write!(out, " {count}")?;
            if let Some(exemplar) = exemplar(self.name, own, index) {
                write!(out, " # {exemplar}")?;
            }
            out.push('\n');
        }
        let count = histogram.get_sample_count();
        write!(out, "{}_count", self.name)?;
        labels(out, own, None)?;
        writeln!(out, " {count}")?;
        self.sample(out, "_sum", metric, histogram.get_sample_sum())
    }
}

/// A number as it must stand in `le`: always with a point.
fn number(bound: f64) -> String {
    if bound.is_infinite() {
        "+Inf".into()
    } else if bound.fract() == 0.0 {
        format!("{bound:.1}")
    } else {
        bound.to_string()
    }
}

fn labels(out: &mut String, pairs: &[LabelPair], le: Option<&str>) -> fmt::Result {
    let own = pairs.iter().map(|pair| (pair.name(), pair.value()));
    let mut before = '{';
    for (name, value) in own.chain(le.map(|bound| ("le", bound))) {
        write!(out, "{before}{name}=\"{}\"", Escaped(value))?;
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    Ok(())
}

struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
