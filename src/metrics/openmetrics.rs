//! Encoder for the OpenMetrics 1.0 text format
//! (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplar::Exemplar;

/// Units with which a family's name can end.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Encodes `families`. `exemplar` looks up the exemplar of a histogram bucket by the family's
/// name, the metric's labels and the bucket's index.
pub(super) fn write(
    families: &[MetricFamily],
    exemplar: impl Fn(&str, &[LabelPair], usize) -> Option<Exemplar>,
) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(16 * 1024);
    for family in families {
        let encoder = Family::of(family);
        encoder.head(&mut out)?;
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::HISTOGRAM => encoder.histogram(&mut out, metric, &exemplar)?,
                MetricType::COUNTER => {
                    encoder.sample(&mut out, "_total", metric, metric.get_counter().get_value())?;
                }
                _ => {
                    let suffix = if encoder.kind == "info" { "_info" } else { "" };
                    encoder.sample(&mut out, suffix, metric, metric.get_gauge().get_value())?;
                }
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(out)
}

struct Family<'f> {
    /// The family's name, without the suffix that is added to its samples.
    name: &'f str,
    kind: &'static str,
    help: &'f str,
}

impl<'f> Family<'f> {
    fn of(family: &'f MetricFamily) -> Self {
        let full_name = family.name();
        let (kind, suffix) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", "_total"),
            MetricType::HISTOGRAM => ("histogram", ""),
            _ if full_name.ends_with("_info") => ("info", "_info"),
            _ => ("gauge", ""),
        };
        Self {
            name: full_name.strip_suffix(suffix).unwrap_or(full_name),
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
        let pairs = metric.get_label();
        let bounded = histogram
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .filter(|(bound, _)| bound.is_finite());
        let infinite = (f64::INFINITY, histogram.get_sample_count());
        for (index, (bound, count)) in bounded.chain([infinite]).enumerate() {
            write!(out, "{}_bucket", self.name)?;
            labels(out, pairs, Some(&bucket_bound(bound)))?;
            write!(out, " {count}")?;
            if let Some(exemplar) = exemplar(self.name, pairs, index) {
                write!(out, " # {exemplar}")?;
            }
            out.push('\n');
        }
        let count = histogram.get_sample_count();
        write!(out, "{}_count", self.name)?;
        labels(out, pairs, None)?;
        writeln!(out, " {count}")?;
        self.sample(out, "_sum", metric, histogram.get_sample_sum())
    }
}

/// Formats a bound for `le`, in which the specification requires a decimal point.
fn bucket_bound(bound: f64) -> String {
    if bound.is_infinite() {
        "+Inf".into()
    } else if bound.fract() == 0.0 {
        format!("{bound:.1}")
    } else {
        bound.to_string()
    }
}

fn labels(out: &mut String, pairs: &[LabelPair], le: Option<&str>) -> fmt::Result {
    let pairs = pairs.iter().map(|pair| (pair.name(), pair.value()));
    let mut separator = '{';
    for (name, value) in pairs.chain(le.map(|bound| ("le", bound))) {
        write!(out, "{separator}{name}=\"{}\"", Escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
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
