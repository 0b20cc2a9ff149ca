//! What the async runtime says of itself.

use tokio::runtime::RuntimeMetrics;

use super::{Metrics, as_i64};

impl Metrics {
    pub(super) fn read_runtime(&self, runtime: &RuntimeMetrics) {
        self.runtime_tasks.set(as_i64(runtime.num_alive_tasks()));
        self.runtime_queue.set(as_i64(runtime.global_queue_depth()));
        for worker in 0..runtime.num_workers() {
            let counted = self.runtime_busy.with_label_values(&[worker.to_string()]);
            let more = runtime.worker_total_busy_duration(worker).as_secs_f64() - counted.get();
            counted.inc_by(more.max(0.0));
        }
    }
}
