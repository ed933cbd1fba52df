//! Families of metrics, as the library that writes them wants them.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// All families that are told, in the order in which they were begun.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

/// One of them, to be given its values.
pub(super) struct Family<'a>(&'a mut MetricFamily);

impl Families {
    /// A value that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, MetricType::GAUGE)
    }

    /// A value that only grows, and begins anew when the node starts. Its name ends with `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name} is a counter");
        self.family(name, help, MetricType::COUNTER)
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        let place = self.0.len();
        self.0.push(family);
        Family(&mut self.0[place])
    }

    /// Those that have values; the others have nothing to tell.
    pub(super) fn into_all(mut self) -> Vec<MetricFamily> {
        self.0.retain(|family| !family.get_metric().is_empty());
        self.0
    }
}

impl Family<'_> {
    /// Adds a value with these labels, which no other value of the family has.
    pub(super) fn value(&mut self, labels: &[(&str, &str)], value: f64) {
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
    #![allow(clippy::unwrap_used)]
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn what_is_told_is_escaped_and_what_has_no_values_is_left_out() {
        let mut families = Families::default();
        families.gauge("highwater_empty", "Nothing.");
        families
            .gauge("highwater_some", "Some.")
            .value(&[("name", "a\"b\\c\nd")], 1.5);
        families.counter("highwater_some_total", "Some.").value(&[], 2.0);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.into_all(), &mut text).unwrap();
        let expected = "# HELP highwater_some Some.\n# TYPE highwater_some gauge\nhighwater_some{name=\"a\\\"b\\\\c\\nd\"} 1.5\n# HELP highwater_some_total Some.\n# TYPE highwater_some_total counter\nhighwater_some_total 2\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
