//! Families of metrics, as the library that writes them wants them.

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// All families that are told, in the order in which they were begun.
#[derive(Default)]
pub(crate) struct Families(Vec<MetricFamily>);

/// One of them, to be given its values.
pub(crate) struct Family<'a>(&'a mut MetricFamily);

impl Families {
    /// A family of values that only grow, and begin anew when the node starts, if its name ends with `_total`; else of values that go up
    /// and down.
    pub(crate) fn begin(&mut self, name: &str, help: &str) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(match name.ends_with("_total") {
            true => MetricType::COUNTER,
            false => MetricType::GAUGE,
        });
        let place = self.0.len();
        self.0.push(family);
        Family(&mut self.0[place])
    }

    /// Families that the library has kept.
    pub(crate) fn collect(&mut self, kept: &impl Collector) {
        self.0.extend(kept.collect());
    }

    /// A family of one value without labels.
    pub(crate) fn tell(&mut self, name: &str, help: &str, value: f64) {
        self.begin(name, help).value(&[], value);
    }

    /// Those that have values; the others have nothing to tell.
    fn into_all(mut self) -> Vec<MetricFamily> {
        self.0.retain(|family| !family.get_metric().is_empty());
        self.0
    }

    /// All of them in Prometheus' text format (0.0.4).
    pub(crate) fn into_text(self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.into_all(), &mut text) {
            tracing::error!(%error, "some metrics cannot be told");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Family<'_> {
    /// Adds a value with these labels, which no other value of the family has.
    pub(crate) fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        match self.0.get_field_type() {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0.mut_metric().push(metric);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_escaped_and_what_has_no_values_is_left_out() {
        let mut families = Families::default();
        families.begin("highwater_empty", "Nothing.");
        families
            .begin("highwater_some", "Some.")
            .value(&[("name", "a\"b\\c\nd")], 1.5);
        families.tell("highwater_some_total", "Some.", 2.0);
        let expected = "# HELP highwater_some Some.\n# TYPE highwater_some gauge\nhighwater_some{name=\"a\\\"b\\\\c\\nd\"} 1.5\n# HELP highwater_some_total Some.\n# TYPE highwater_some_total counter\nhighwater_some_total 2\n";
        assert_eq!(families.into_text(), expected);
    }
}
