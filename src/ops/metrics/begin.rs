//! Counters are there from the start, at 0: a rate over the first event needs what was before it.

use prometheus::core::{MetricVec, MetricVecBuilder};

/// Makes a metric for each value of its label.
pub(super) fn begin<M: MetricVecBuilder, L: Copy>(
    metrics: &MetricVec<M>,
    values: &[L],
    label: fn(L) -> &'static str,
) {
    values.iter().for_each(|value| drop(metrics.with_label_values(&[label(*value)])));
}
